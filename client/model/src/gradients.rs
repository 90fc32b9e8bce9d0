//! What the passes through the model give and how much they may hold.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use fedlora_adapter::Factors;

use super::batch::Batch;
use super::llama::Llama;
use super::lora::{Dropout, Lora};
use super::passes::Passes;

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

/// Computes the loss of `batch` and its gradients by the factors that `factors` selects.
///
/// # Panics
/// When the batch counts no token: the caller leaves such batches out.
pub fn loss_and_gradients<B: Passes>(
    model: &Llama<B>,
    lora: &Lora<B>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
    memory: Memory,
) -> Gradients<B> {
    assert!(
        !batch.targets().is_empty(),
        "a batch without a counted token"
    );
    B::loss_and_gradients(model, lora, factors, dropout, batch, memory)
}
