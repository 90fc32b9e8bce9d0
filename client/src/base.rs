//! Where a base model comes from: a Hugging Face folder, a GGUF file, or the hub.

use std::path::{Path, PathBuf};

use crate::data::TextPipeline;
use crate::data::tokenizer::TokenizerError;
use crate::model::{BaseWeights, WeightsError};

/// A base model that is on this machine.
#[derive(Debug, Clone)]
pub struct Base {
    name: String,
    folder: PathBuf,
}

impl Base {
    /// Finds the base that `text` names.
    ///
    /// # Errors
    /// Where nothing of that name can be had.
    pub fn open(text: &str) -> Result<Self, BaseError> {
        let folder = PathBuf::from(text);
        let name = name_of(&folder);
        Ok(Self { name, folder })
    }

    /// What adapters call it: the folder's or file's name, or the name on the hub.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration and weights.
    ///
    /// # Errors
    /// What keeps them from being a model that we run.
    pub fn weights(&self) -> Result<BaseWeights, WeightsError> {
        BaseWeights::load(&self.folder)
    }

    /// Its tokenizer and chat template.
    ///
    /// # Errors
    /// What keeps them from being used.
    pub fn text(&self) -> Result<TextPipeline, TokenizerError> {
        TextPipeline::from_folder(&self.folder)
    }
}

/// The last part of a path, resolved.
fn name_of(path: &Path) -> String {
    path.canonicalize()
        .ok()
        .and_then(|path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| path.display().to_string())
}

/// A base that cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Nothing of that name.
    #[error("there is no base model '{name}'")]
    Missing {
        /// What was asked for.
        name: String,
    },
}
