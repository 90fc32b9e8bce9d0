//! The tensors of a GGUF file under the names, in the order and in the layout of the model.
//!
//! GGUF files of architecture `llama` hold the rows of q and k in another order: there the two
//! features that turn together are neighbours, in Hugging Face's layout they lie half a head
//! apart. Rows are put back as they are read.

use std::collections::BTreeSet;

use fedlora_adapter::tensors::FloatTensor;
use rayon::prelude::*;

use super::super::config::{Architecture, LlamaConfig};
use super::super::source::{TensorSource, WeightsError};
use super::config::{EMBEDDING, OUTPUT};
use super::container::{Container, TensorInfo};
use super::error::GgufError;
use super::rope_factors::ROPE_FACTORS;

/// About how many stored bytes are read and de-quantised at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Where a tensor of the model is found.
struct Place {
    name: String,
    info: TensorInfo,
    /// Rows of a head, where they are in the rotation's order.
    head: Option<usize>,
}

/// A GGUF file as a source of tensors.
pub(super) struct GgufSource {
    container: Container,
    /// In the order of [`LlamaConfig::tensors`].
    places: Vec<Place>,
}

impl GgufSource {
    /// Finds every tensor of the model, in its shape, and none besides.
    pub(super) fn new(container: Container, config: &LlamaConfig) -> Result<Self, GgufError> {
        let path = || container.path().to_owned();
        let mut places = Vec::new();
        for (model_name, expected) in config.tensors() {
            let name = stored_name(&model_name).unwrap_or(model_name);
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
            // Qwen2's files keep the order.
            let reordered = rotated && config.architecture != Architecture::Qwen2;
            let head = reordered.then_some(config.head_dim);
            places.push(Place { name, info, head });
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

impl TensorSource for GgufSource {
    fn read(&self, index: usize) -> Result<FloatTensor, WeightsError> {
        let place = &self.places[index];
        let values = read(&self.container, &place.name, &place.info, place.head)?;
        Ok(FloatTensor {
            shape: place.info.shape.clone(),
            values,
        })
    }
}

/// What GGUF calls a tensor of the model; `None` where it has no name for it.
fn stored_name(name: &str) -> Option<String> {
    match name {
        "model.embed_tokens.weight" => return Some(EMBEDDING.to_owned()),
        "model.norm.weight" => return Some("output_norm.weight".to_owned()),
        "lm_head.weight" => return Some(OUTPUT.to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (path, kind) = rest.rsplit_once('.')?;
    let path = match path {
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{path}.{kind}"))
}

/// The values of a tensor whose rows stand as they are used.
pub(super) fn read_plain(
    container: &Container,
    name: &str,
    info: &TensorInfo,
) -> Result<Vec<f32>, GgufError> {
    read(container, name, info, None)
}

/// Reads and de-quantises a tensor, several pieces at a time. `head` is the number of rows of
/// a head where rows are to be put back from the rotation's order.
fn read(
    container: &Container,
    name: &str,
    info: &TensorInfo,
    head: Option<usize>,
) -> Result<Vec<f32>, GgufError> {
    // Blocks run along the last dimension; the container checked that they fill it.
    let row = info.shape.last().copied().unwrap_or(1);
    let row_bytes = info.kind.bytes_of(row);
    let rows = head.unwrap_or_else(|| (CHUNK_BYTES / row_bytes).max(1));
    // The sum of all bytes of the file bounds this.
    let mut values = vec![0.0; info.shape.iter().product()];
    values
        .par_chunks_mut(rows * row)
        .enumerate()
        .try_for_each(|(chunk, out)| {
            let mut stored = vec![0; info.kind.bytes_of(out.len())];
            let first = chunk * rows;
            container.read_at(&mut stored, info.offset + (first * row_bytes) as u64)?;
            match head {
                None => info.kind.dequantize(&stored, out),
                Some(head) => {
                    let stored = stored.chunks_exact(row_bytes);
                    for (index, stored) in stored.enumerate() {
                        let to = row_in_model(index, head);
                        info.kind
                            .dequantize(stored, &mut out[to * row..(to + 1) * row]);
                    }
                }
            }
            match out.iter().position(|value| !value.is_finite()) {
                None => Ok(()),
                Some(index) => Err(GgufError::NotFinite {
                    path: container.path().to_owned(),
                    name: name.to_owned(),
                    index: first * row + index,
                }),
            }
        })?;
    Ok(values)
}

/// Which row of a head the stored row `index` of it is: pairs of neighbours become halves.
fn row_in_model(index: usize, head: usize) -> usize {
    index % 2 * (head / 2) + index / 2
}

#[cfg(test)]
mod tests {
    use super::super::super::config::tests::tiny;
    use super::*;

    #[test]
    fn every_tensor_of_the_model_has_a_name_of_its_own() {
        let config = LlamaConfig {
            qkv_bias: true,
            tie_word_embeddings: false,
            ..tiny()
        };
        let names = config.tensors();
        let stored: BTreeSet<_> = names
            .iter()
            .map(|(name, _)| stored_name(name).unwrap())
            .collect();
        assert_eq!(stored.len(), names.len());
        assert!(stored.contains("blk.1.attn_k.bias") && stored.contains("blk.0.ffn_norm.weight"));
        assert_eq!(stored_name("model.layers.0.mlp.odd.weight"), None);
    }

    #[test]
    fn neighbours_become_halves() {
        let order: Vec<_> = (0..6).map(|index| row_in_model(index, 6)).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5]);
    }
}
