//! The tensors of a GGUF file under the names, in the order and in the layout of the model.
//!
//! GGUF files of most architectures hold the rows of q and k in another order: there the two
//! features that turn together are neighbours, in Hugging Face's layout they lie half a head
//! apart. `values` puts rows back as it reads them.

use std::collections::BTreeSet;

use fedlora_adapter::tensors::FloatTensor;

use super::super::config::{Architecture, LlamaConfig};
use super::super::source::{TensorSource, WeightsError};
use super::container::{Container, TensorInfo};
use super::error::GgufError;
use super::names::{ROPE_FACTORS, stored_name};
use super::values::{RowOrder, read_values};

/// A tensor of the model in the file.
struct TensorPlace {
    name: String,
    info: TensorInfo,
    order: RowOrder,
}

/// A GGUF file as a source of tensors.
pub(super) struct GgufSource {
    container: Container,
    /// In the order of [`LlamaConfig::tensors`].
    places: Vec<TensorPlace>,
}

impl GgufSource {
    /// Finds every tensor of the model, in its shape, and none besides.
    pub(super) fn new(container: Container, config: &LlamaConfig) -> Result<Self, GgufError> {
        let path = || container.path().to_owned();
        let mut places = Vec::new();
        for (model_name, expected) in config.tensors() {
            let name = stored_name(&model_name, config.variation.output_norms);
            let name = name.unwrap_or(model_name);
            let info = container.tensors().get(&name).cloned();
            let Some(info) = info else {
                return Err(GgufError::Missing { path: path(), name });
            };
            if info.shape != expected {
                return Err(GgufError::Shape {
                    path: path(),
                    name,
                    got: info.shape,
                    expected,
                });
            }
            let rotated = name.contains(".attn_q.") || name.contains(".attn_k.");
            let order = if rotated && interleaved(config.architecture) {
                RowOrder::Interleaved {
                    head: config.head_dim,
                }
            } else {
                RowOrder::Plain
            };
            places.push(TensorPlace { name, info, order });
        }
        let mut known: BTreeSet<&str> = places.iter().map(|place| place.name.as_str()).collect();
        // Read with the configuration.
        known.insert(ROPE_FACTORS);
        let mut names = container.tensors().keys();
        if let Some(extra) = names.find(|name| !known.contains(name.as_str())) {
            return Err(GgufError::Extra {
                path: path(),
                name: extra.clone(),
            });
        }
        Ok(Self { container, places })
    }
}

/// Whether converters put rows that turn together beside each other.
fn interleaved(architecture: Architecture) -> bool {
    match architecture {
        Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Gemma3 => false,
        Architecture::Llama
        | Architecture::Mistral
        | Architecture::SmolLm3
        | Architecture::Granite => true,
    }
}

impl TensorSource for GgufSource {
    fn read(&self, index: usize) -> Result<FloatTensor, WeightsError> {
        let place = &self.places[index];
        let values = read_values(&self.container, &place.name, &place.info, place.order)?;
        Ok(FloatTensor {
            shape: place.info.shape.clone(),
            values,
        })
    }
}
