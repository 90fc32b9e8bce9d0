//! The forward pass of one sequence in stretches: the keys and values of the tokens so far are
//! kept, so that a further token costs one row.
//!
//! Composed of single operations, as [`Llama::hidden`] is.

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, FloatDType, Tensor, TensorData};

use super::llama::Llama;
use super::lora::Lora;
use super::ops::FusedOps;
use super::rope::Rotations;

/// Tokens that pass the model at a time. Attention holds `heads * STRETCH * positions` scores.
const STRETCH: usize = 256;

/// Keys and values of the tokens that a sequence has so far. Cloning shares the tensors, so
/// that one beginning serves several continuations.
#[derive(Debug, Clone)]
pub struct Cache<B: Backend> {
    /// One a block; empty before the first token.
    blocks: Vec<KeysAndValues<B>>,
    length: usize,
}

/// Both `[key heads, positions, head width]`, keys rotated.
#[derive(Debug, Clone)]
struct KeysAndValues<B: Backend> {
    keys: Tensor<B, 3>,
    values: Tensor<B, 3>,
}

impl<B: Backend> Cache<B> {
    /// The cache of a sequence without tokens.
    pub fn new() -> Self {
        Self {
            blocks: Vec::new(),
            length: 0,
        }
    }

    /// Number of tokens that the sequence has so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<B: Backend> Default for Cache<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: FusedOps> Llama<B> {
    /// Puts `tokens` behind those in `cache`. Gives their hidden states after the last norm,
    /// `[tokens, hidden]`, equal to those of [`Llama::hidden`] but for rounding.
    ///
    /// # Panics
    /// When `tokens` is empty, or the sequence becomes longer than the model's positions:
    /// callers check.
    pub fn extend(
        &self,
        cache: &mut Cache<B>,
        tokens: &[u32],
        lora: Option<&Lora<B>>,
    ) -> Tensor<B, 2> {
        assert!(!tokens.is_empty(), "there is nothing to extend by");
        assert!(
            cache.length + tokens.len() <= self.config().max_position_embeddings,
            "a sequence longer than the model's positions"
        );
        let mut hidden: Vec<_> = tokens
            .chunks(STRETCH)
            .map(|stretch| self.stretch(cache, stretch, lora))
            .collect();
        match hidden.len() {
            1 => hidden.swap_remove(0),
            _ => Tensor::cat(hidden, 0),
        }
    }

    fn stretch(
        &self,
        cache: &mut Cache<B>,
        tokens: &[u32],
        lora: Option<&Lora<B>>,
    ) -> Tensor<B, 2> {
        let (past, all) = (cache.length, cache.length + tokens.len());
        let tables = self.ropes().tables(all);
        let half = self.config().head_dim / 2;
        let step = Step {
            model: self,
            lora,
            rotations: tables.map(|table| table.slice([past..all, 0..half])),
            windowed: self.hidden_keys(past, all, self.config().sliding_window),
            unwindowed: match self.config().variation.unwindowed.is_empty() {
                true => None,
                false => self.hidden_keys(past, all, None),
            },
        };
        let mut x = self.embed(tokens);
        for layer in 0..self.config().num_hidden_layers {
            x = step.block(layer, x, &mut cache.blocks);
        }
        cache.length = all;
        self.norm(x, self.last_norm())
    }

    /// Which keys each token from `past` on may not see, `[all - past, all]`; `None` where
    /// all may be seen.
    fn hidden_keys(
        &self,
        past: usize,
        all: usize,
        window: Option<usize>,
    ) -> Option<Tensor<B, 2, Bool>> {
        let window = window.unwrap_or(usize::MAX);
        if all - past == 1 && all <= window {
            return None;
        }
        let hidden: Vec<bool> = (past..all)
            .flat_map(|at| (0..all).map(move |key| key > at || at - key >= window))
            .collect();
        let data = TensorData::new(hidden, [all - past, all]);
        Some(Tensor::from_data(data, &self.device()))
    }
}

/// One stretch of tokens on its way through the blocks.
struct Step<'a, B: FusedOps> {
    model: &'a Llama<B>,
    lora: Option<&'a Lora<B>>,
    rotations: Rotations<Tensor<B, 2>>,
    /// The keys that a block with the model's sliding window, if it has one, does not see.
    windowed: Option<Tensor<B, 2, Bool>>,
    /// The same of a block without it.
    unwindowed: Option<Tensor<B, 2, Bool>>,
}

impl<B: FusedOps> Step<'_, B> {
    /// One block, `[rows, hidden]` to the same. Its keys and values go into `blocks`.
    fn block(
        &self,
        layer: usize,
        x: Tensor<B, 2>,
        blocks: &mut Vec<KeysAndValues<B>>,
    ) -> Tensor<B, 2> {
        let (lora, rotations) = (self.lora, &self.rotations);
        let attend = |q, k, v| {
            let (keys, values) = (self.heads(k), self.heads(v));
            let now = match blocks.get(layer) {
                None => KeysAndValues { keys, values },
                Some(before) => KeysAndValues {
                    keys: Tensor::cat(vec![before.keys.clone(), keys], 1),
                    values: Tensor::cat(vec![before.values.clone(), values], 1),
                },
            };
            let context = self.attend(layer, self.heads(q), &now);
            if layer < blocks.len() {
                blocks[layer] = now;
            } else {
                blocks.push(now);
            }
            context
        };
        self.model
            .block_with(layer, x, rotations, lora, &mut None, attend)
    }

    /// `[rows, heads * dim]` to `[heads, rows, dim]`.
    fn heads(&self, x: Tensor<B, 2>) -> Tensor<B, 3> {
        let dim = self.model.config().head_dim;
        let [rows, width] = x.dims();
        x.reshape([rows, width / dim, dim]).swap_dims(0, 1)
    }

    /// The values weighted by the attention of `q` to the keys, `[rows, heads * dim]`.
    fn attend(&self, layer: usize, q: Tensor<B, 3>, seen: &KeysAndValues<B>) -> Tensor<B, 2> {
        let [heads, rows, dim] = q.dims();
        let [groups, all, _] = seen.keys.dims();
        // Query heads that share keys lie side by side: one product serves the group.
        let shared = heads / groups;
        let scores = q
            .mul_scalar(self.model.attention_shape(layer).scale)
            .reshape([groups, shared * rows, dim])
            .matmul(seen.keys.clone().swap_dims(1, 2))
            .cast(FloatDType::F32);
        let hidden = match self.model.config().variation.unwindowed.contains(&layer) {
            true => &self.unwindowed,
            false => &self.windowed,
        };
        let scores = match hidden {
            None => scores,
            Some(hidden) => {
                let hidden = hidden.clone().reshape([1, 1, rows, all]);
                scores
                    .reshape([groups, shared, rows, all])
                    .mask_fill(
                        hidden.expand([groups, shared, rows, all]),
                        f32::NEG_INFINITY,
                    )
                    .reshape([groups, shared * rows, all])
            }
        };
        softmax(scores, 2)
            .cast(seen.values.dtype())
            .matmul(seen.values.clone())
            .reshape([heads, rows, dim])
            .swap_dims(0, 1)
            .reshape([rows, heads * dim])
    }
}
