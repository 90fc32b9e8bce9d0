//! The Llama forward pass, generic over burn's backends.

use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData, TensorPrimitive};
use fedlora_common::adapter::Target;

use super::config::LlamaConfig;
use super::lora::{Dropout, Lora};
use super::ops::{FusedOps, Heads, Rotation};
use super::rope::{RopeTables, inverse_frequencies};
use super::weights::{BaseWeights, WeightsError};
use crate::data::Example;

/// Sequences padded on the right to one length, with the rows whose next token counts.
///
/// Attention is causal, so padding cannot reach a real token; padded rows are never counted.
#[derive(Clone)]
pub struct Batch {
    tokens: Vec<i32>,
    batch: usize,
    length: usize,
    places: Vec<usize>,
    targets: Vec<u32>,
}

impl Batch {
    /// Pads `examples`, each cut at `max_tokens`, to the longest among them.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>, max_tokens: usize) -> Self {
        let rows: Vec<_> = examples
            .into_iter()
            .map(|example| {
                let length = example.tokens().len().min(max_tokens);
                (&example.tokens()[..length], &example.loss()[..length])
            })
            .collect();
        // The last token only is a target: nothing is predicted from it.
        let length = rows
            .iter()
            .map(|(tokens, _)| tokens.len().saturating_sub(1))
            .max()
            .unwrap_or(0)
            .max(1);
        let mut made = Self {
            tokens: vec![0; rows.len() * length],
            batch: rows.len(),
            length,
            places: Vec::new(),
            targets: Vec::new(),
        };
        for (row, (tokens, loss)) in rows.into_iter().enumerate() {
            for position in 0..tokens.len().saturating_sub(1) {
                let place = row * length + position;
                made.tokens[place] = tokens[position] as i32;
                if loss[position + 1] {
                    made.places.push(place);
                    made.targets.push(tokens[position + 1]);
                }
            }
        }
        made
    }

    /// Rows of the hidden states from which a counted token is predicted.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// The counted tokens, one a place.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Positions that are computed, padding included.
    pub fn positions(&self) -> usize {
        self.batch * self.length
    }
}

/// A Llama model on a device. Cloning shares the tensors.
#[derive(Debug, Clone)]
pub struct Llama<B: Backend> {
    config: Arc<LlamaConfig>,
    /// In the order of [`LlamaConfig::tensors`]; norms are `[1, hidden]`.
    tensors: Vec<Tensor<B, 2>>,
    rope: RopeTables<B>,
}

/// Tensors of a block, counted from its first; the biases of q k v follow.
const PER_BLOCK: usize = 9;

fn per_block(config: &LlamaConfig) -> usize {
    PER_BLOCK + if config.qkv_bias { 3 } else { 0 }
}

impl<B: Backend> Llama<B> {
    /// Reads the weights, one tensor at a time, and places them on the device.
    ///
    /// # Errors
    /// A tensor that cannot be read, or that is not finite.
    pub fn new(weights: &BaseWeights, device: &B::Device) -> Result<Self, WeightsError> {
        let config = weights.config();
        let tensors = (0..config.tensors().len())
            .map(|index| {
                let tensor = weights.read(index)?;
                let shape = match tensor.shape[..] {
                    [rows, columns] => [rows, columns],
                    _ => [1, tensor.values.len()],
                };
                let data = TensorData::new(tensor.values, shape);
                Ok(Tensor::from_data(data, device))
            })
            .collect::<Result<_, WeightsError>>()?;
        Ok(Self {
            rope: RopeTables::new(
                config.max_position_embeddings,
                &inverse_frequencies(config),
                device,
            ),
            config: Arc::new(config.clone()),
            tensors,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// All weights, in the order of [`LlamaConfig::tensors`].
    pub fn tensors(&self) -> &[Tensor<B, 2>] {
        &self.tensors
    }

    /// The same model with each weight and table passed through `change`, which may move it
    /// to another backend.
    pub fn map<C: Backend>(
        &self,
        mut weight: impl FnMut(Tensor<B, 2>) -> Tensor<C, 2>,
        table: impl Fn(Tensor<B, 2>) -> Tensor<C, 2>,
    ) -> Llama<C> {
        Llama {
            config: self.config.clone(),
            tensors: self.tensors.iter().cloned().map(&mut weight).collect(),
            rope: RopeTables {
                cos: table(self.rope.cos.clone()),
                sin: table(self.rope.sin.clone()),
            },
        }
    }

    /// The output layer, `[vocab, hidden]`.
    pub fn output_weight(&self) -> Tensor<B, 2> {
        let index = if self.config.tie_word_embeddings {
            0
        } else {
            self.tensors.len() - 1
        };
        self.tensors[index].clone()
    }

    fn block(&self, layer: usize, offset: usize) -> Tensor<B, 2> {
        self.tensors[1 + layer * per_block(&self.config) + offset].clone()
    }
}

impl<B: FusedOps> Llama<B> {
    /// Hidden states after the last norm, `[batch * length, hidden]`.
    ///
    /// # Panics
    /// When a sequence is longer than the model's positions: callers cut examples.
    pub fn hidden(
        &self,
        batch: &Batch,
        lora: Option<&Lora<B>>,
        dropout: &mut Option<Dropout>,
    ) -> Tensor<B, 2> {
        let config = &self.config;
        assert!(
            batch.length <= config.max_position_embeddings,
            "a sequence longer than the model's positions"
        );
        let device = self.tensors[0].device();
        let data = TensorData::new(batch.tokens.clone(), [batch.positions()]);
        let tokens = Tensor::<B, 1, Int>::from_data(data, &device);
        let mut x = self.tensors[0].clone().select(0, tokens);
        for layer in 0..config.num_hidden_layers {
            let mut pass = Pass {
                model: self,
                layer,
                lora,
                dropout,
                shape: (batch.batch, batch.length),
            };
            x = pass.attention(x);
            x = pass.feed_forward(x);
        }
        let last = 1 + config.num_hidden_layers * per_block(config);
        self.norm(x, self.tensors[last].clone())
    }

    fn norm(&self, x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        wrap(B::rms_norm(raw(x), raw(weight), self.config.rms_norm_eps))
    }
}

/// One block of one forward pass.
struct Pass<'a, B: FusedOps> {
    model: &'a Llama<B>,
    layer: usize,
    lora: Option<&'a Lora<B>>,
    dropout: &'a mut Option<Dropout>,
    shape: (usize, usize),
}

impl<B: FusedOps> Pass<'_, B> {
    fn project(&mut self, target: Target, x: &Tensor<B, 2>) -> Tensor<B, 2> {
        // Two norms stand among the seven projections.
        let offset = 1 + target as usize + usize::from(target >= Target::Gate);
        let weight = self.model.block(self.layer, offset);
        let mut y = x.clone().matmul(weight.transpose());
        if self.model.config.qkv_bias && target <= Target::V {
            y = y + self.model.block(self.layer, PER_BLOCK + target as usize);
        }
        let low_rank = self
            .lora
            .and_then(|lora| lora.apply(self.layer, target, x, self.dropout));
        match low_rank {
            Some(low_rank) => y + low_rank,
            None => y,
        }
    }

    fn heads(&self, heads: usize) -> Heads {
        Heads {
            batch: self.shape.0,
            length: self.shape.1,
            heads,
            dim: self.model.config.head_dim,
        }
    }

    fn attention(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let config = &self.model.config;
        let normed = self.model.norm(x.clone(), self.model.block(self.layer, 0));
        let queries = self.heads(config.num_attention_heads);
        let keys = self.heads(config.num_key_value_heads);
        let (batch, length, dim) = (queries.batch, queries.length, queries.dim);
        // Query heads that share keys lie side by side: one product serves the group.
        let groups = batch * keys.heads;
        let rows = queries.heads / keys.heads * length;

        let q = self.split(Target::Q, &normed, queries, true);
        let k = self.split(Target::K, &normed, keys, true);
        let v = self.split(Target::V, &normed, keys, false);
        let scores = q
            .reshape([groups, rows, dim])
            .matmul(k.reshape([groups, length, dim]).swap_dims(1, 2));
        let scale = 1.0 / (dim as f64).sqrt();
        let p: Tensor<B, 3> = match config.sliding_window {
            Some(window) if window < length => {
                let device = scores.device();
                let later = Tensor::<B, 2, Bool>::tril_mask([length, length], 0, &device);
                let gone =
                    Tensor::<B, 2, Bool>::triu_mask([length, length], 1 - window as i64, &device);
                let hidden = later
                    .bool_or(gone)
                    .reshape([1, 1, length, length])
                    .expand([groups, rows / length, length, length])
                    .reshape([groups, rows, length]);
                let scores = scores.mul_scalar(scale);
                softmax(scores.mask_fill(hidden, f32::NEG_INFINITY), 2)
            }
            _ => wrap(B::causal_softmax(raw(scores), scale)),
        };
        let context =
            p.matmul(v.reshape([groups, length, dim]))
                .reshape([batch, queries.heads, length, dim]);
        let context: Tensor<B, 2> = wrap(B::merge_heads(raw(context), queries, None));
        x + self.project(Target::O, &context)
    }

    fn split(
        &mut self,
        target: Target,
        x: &Tensor<B, 2>,
        heads: Heads,
        rotated: bool,
    ) -> Tensor<B, 4> {
        let rope = &self.model.rope;
        let rotation = rotated.then(|| Rotation {
            cos: raw(rope.cos.clone()),
            sin: raw(rope.sin.clone()),
        });
        let projected = self.project(target, x);
        wrap(B::split_heads(raw(projected), heads, rotation))
    }

    fn feed_forward(&mut self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let normed = self.model.norm(x.clone(), self.model.block(self.layer, 5));
        let gate = self.project(Target::Gate, &normed);
        let up = self.project(Target::Up, &normed);
        let inner: Tensor<B, 2> = wrap(B::swiglu(raw(gate), raw(up)));
        x + self.project(Target::Down, &inner)
    }
}

fn wrap<B: Backend, const D: usize>(x: burn::tensor::ops::FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

fn raw<B: Backend, const D: usize>(x: Tensor<B, D>) -> burn::tensor::ops::FloatTensor<B> {
    x.into_primitive().tensor()
}
