//! The base model of a simulation: the embedded one, or whatever `fedlora` takes as one.

use std::path::Path;

use anyhow::Context;
use fedlora_client::base::Base;
use fedlora_client::cli::fetch_base;
use fedlora_data::TextPipeline;
use fedlora_shell::{Progress, ProgressUnit};
use fedlora_train::Engine;

use super::assets;
use super::options::Options;
use super::run::SimulationError;

/// A base on its device, opened once for all runs on it.
#[derive(Debug)]
pub(super) struct OpenBase {
    /// What adapters call it.
    pub(super) name: String,
    pub(super) engine: Engine,
    pub(super) pipeline: TextPipeline,
}

impl OpenBase {
    /// Opens the base that the options name: a folder, a GGUF file or a name on the hub. Without
    /// one, the embedded base is written to `scratch`.
    ///
    /// # Errors
    /// A base that cannot be had or used.
    pub(super) fn open(options: &Options, scratch: &Path) -> Result<Self, SimulationError> {
        let (base, name) = match &options.base {
            Some(text) => {
                let progress = Progress::with_quiet(options.global.quiet, ProgressUnit::Bytes);
                let base = fetch_base(text, progress)?;
                let name = base.name().to_owned();
                (base, name)
            }
            None => {
                let folder = scratch.join("base");
                assets::write_base(&folder).with_context(|| {
                    format!(
                        "the embedded base cannot be written to {}",
                        folder.display()
                    )
                })?;
                // As a path, which never goes to the network.
                let folder = folder.canonicalize().context("the embedded base")?;
                let base = Base::open(&folder.display().to_string())?;
                (base, assets::BASE_NAME.to_owned())
            }
        };
        let pipeline = base
            .text()
            .map_err(|error| SimulationError::Data(error.into()))?;
        let weights = base.weights().map_err(fedlora_train::ModelError::from)?;
        let engine = Engine::from_weights(&weights, base.name(), &options.device)?;
        Ok(Self {
            name,
            engine,
            pipeline,
        })
    }
}
