//! What the passes through the model give and how much they may hold.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// What the forward pass keeps for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Memory {
    /// What the backward pass needs, block by block.
    #[default]
    Normal,
    /// Each block's input alone: the block is computed again in the backward pass (Chen et
    /// al., 2016).
    Low,
}

/// A batch's loss and gradients, both summed over its counted tokens.
#[derive(Debug, Clone)]
pub struct Gradients<B: Backend> {
    /// Sum of the cross-entropies in nats, `[1]`.
    pub loss: Tensor<B, 1>,
    /// One for each selected factor, in layout order.
    pub factors: Vec<Tensor<B, 2>>,
}

/// What a model makes of a batch's counted tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Sum of the cross-entropies in nats.
    pub loss: f64,
    /// Tokens that have the largest logit.
    pub correct: usize,
}
