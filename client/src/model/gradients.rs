//! The loss of a batch with the gradients of an adapter's factors.

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use fedlora_common::adapter::Factors;

use super::llama::{Batch, Llama};
use super::lora::{Dropout, Lora};
use super::loss::loss_sum;
use super::ops::FusedOps;

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
pub struct Gradients<B: FusedOps> {
    /// Sum of the cross-entropies in nats, `[1]`.
    pub loss: Tensor<B, 1>,
    /// One for each selected factor, in layout order.
    pub factors: Vec<Tensor<B, 2>>,
}

/// Computes the loss of `batch` and its gradients by the factors that `factors` selects.
///
/// # Panics
/// When the batch counts no token: the caller leaves such batches out.
pub fn loss_and_gradients<B: FusedOps>(
    model: &Llama<B>,
    lora: &Lora<B>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
    _memory: Memory,
) -> Gradients<B> {
    let base: Llama<Autodiff<B>> = model.map(Tensor::from_inner, Tensor::from_inner);
    let mut leaves = Vec::new();
    let lora = lora.map(|factor, tensor| {
        let tensor = Tensor::from_inner(tensor);
        if !factors.contains(factor) {
            return tensor;
        }
        let leaf = tensor.require_grad();
        leaves.push(leaf.clone());
        leaf
    });
    let loss = loss_sum(&base, Some(&lora), dropout, batch);
    let found = loss.backward();
    Gradients {
        loss: loss.inner(),
        factors: leaves
            .iter()
            .map(|leaf| {
                leaf.grad(&found)
                    .unwrap_or_else(|| leaf.clone().inner().zeros_like())
            })
            .collect(),
    }
}
