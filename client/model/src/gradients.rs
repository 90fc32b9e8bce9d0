//! What the passes through the model give and how much they may hold.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// What the forward pass keeps for the backward pass: activation checkpointing, by block, trades
/// about a third more computation for memory (Chen et al., 2016, arXiv:1604.06174).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationCheckpointing {
    /// All activations that the backward pass needs.
    #[default]
    Off,
    /// Each block's input alone; the backward pass recomputes the rest of the block.
    PerBlock,
}

/// A batch's loss and gradients, both summed over its target tokens.
#[derive(Debug, Clone)]
pub struct Gradients<B: Backend> {
    /// Sum of the cross-entropies in nats, `[1]`.
    pub loss: Tensor<B, 1>,
    /// One for each selected factor, in layout order.
    pub factors: Vec<Tensor<B, 2>>,
}

/// Loss and accuracy of a model on a batch's target tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Sum of the cross-entropies in nats.
    pub loss: f64,
    /// Target tokens to which the model gives the largest logit.
    pub correct: usize,
}
