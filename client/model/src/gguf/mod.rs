//! Llama-class models in GGUF files: the container, the values of its tensors, and the model's
//! configuration from its metadata. [`BaseWeights::from_gguf`] opens one.
//!
//! `container` reads and checks a file's header, `quant` turns stored blocks into `f32`,
//! `config` makes a [`LlamaConfig`](super::LlamaConfig) of the metadata, `source` hands out the
//! tensors in the order of the model, with `names` for their names and `values` for their
//! contents. The crate `fedlora-data` reads the file's tokenizer from the same container.

mod config;
pub(crate) mod container;
pub(crate) mod error;
mod gemma3;
pub(crate) mod metadata;
mod names;
mod parts;
mod quant;
mod rope_factors;
mod rope_scaling;
mod source;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod test_file;
mod values;

use std::path::Path;
use std::sync::Arc;

pub use config::token as token_id;
pub use container::{Container, TensorInfo};
pub use error::GgufError;
pub use metadata::{List, Metadata, ScalarType, Value};
pub use quant::{QuantBlock, TensorType};

use super::source::WeightsError;
use super::weights::BaseWeights;
use source::GgufSource;

/// Whether `path` is a GGUF file: by its name, or by how it begins.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "gguf") || container::has_magic(path)
}

impl BaseWeights {
    /// Opens a GGUF file of a supported architecture, or all parts of it by one of them. Its
    /// tensors are read, and de-quantised to `f32`, when they are asked for.
    ///
    /// # Errors
    /// [`WeightsError::Gguf`]: a file that is malformed, or metadata or tensors that are missing,
    /// left over, wrongly shaped or not supported, by name.
    pub fn from_gguf(path: &Path) -> Result<Self, WeightsError> {
        let container = Container::open(path)?;
        let config = config::read(&container)?;
        let source = GgufSource::new(container, &config)?;
        Ok(Self::from_source(config, Arc::new(source)))
    }
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
