//! The passes through the model that training and evaluation make, by backend: handwritten
//! on the CPU, through autodiff elsewhere.

mod generic;

use burn_flex::Flex;
use fedlora_adapter::Factors;

use super::batch::Batch;
use super::cpu;
use super::dropout::Dropout;
use super::gradients::{ActivationCheckpointing, Gradients, Score};
use super::llama::Llama;
use super::lora::Lora;
use super::ops::FusedOps;
use burn::tensor::Tensor;

/// A backend that models are trained on.
pub trait Passes: FusedOps {
    /// Hidden states after the last norm, `[rows, hidden]`, without gradients.
    fn hidden(model: &Llama<Self>, lora: Option<&Lora<Self>>, batch: &Batch) -> Tensor<Self, 2> {
        model.hidden(batch, lora, &mut None)
    }

    /// Loss and correct predictions of a batch's target tokens, without gradients.
    fn score(model: &Llama<Self>, lora: Option<&Lora<Self>>, batch: &Batch) -> Score {
        generic::score(model, lora, batch)
    }

    /// A batch's loss and the gradients of the selected factors, summed over its target
    /// tokens.
    fn loss_and_gradients(
        model: &Llama<Self>,
        lora: &Lora<Self>,
        factors: Factors,
        dropout: &mut Option<Dropout>,
        batch: &Batch,
        checkpointing: ActivationCheckpointing,
    ) -> Gradients<Self> {
        generic::loss_and_gradients(model, lora, factors, dropout, batch, checkpointing)
    }
}

/// Computes the loss of `batch` and its gradients by the factors that `factors` selects.
///
/// # Panics
/// When the batch has no target token: the caller leaves such batches out.
pub fn loss_and_gradients<B: Passes>(
    model: &Llama<B>,
    lora: &Lora<B>,
    factors: Factors,
    dropout: &mut Option<Dropout>,
    batch: &Batch,
    checkpointing: ActivationCheckpointing,
) -> Gradients<B> {
    assert!(
        !batch.targets().is_empty(),
        "a batch without a target token"
    );
    B::loss_and_gradients(model, lora, factors, dropout, batch, checkpointing)
}

impl Passes for Flex {
    fn hidden(model: &Llama<Self>, lora: Option<&Lora<Self>>, batch: &Batch) -> Tensor<Self, 2> {
        cpu::passes::hidden(model, lora, batch)
    }

    fn score(model: &Llama<Self>, lora: Option<&Lora<Self>>, batch: &Batch) -> Score {
        cpu::passes::score(model, lora, batch)
    }

    fn loss_and_gradients(
        model: &Llama<Self>,
        lora: &Lora<Self>,
        factors: Factors,
        dropout: &mut Option<Dropout>,
        batch: &Batch,
        checkpointing: ActivationCheckpointing,
    ) -> Gradients<Self> {
        cpu::passes::loss_and_gradients(model, lora, factors, dropout, batch, checkpointing)
    }
}

#[cfg(feature = "cuda")]
impl Passes for burn_cuda::Cuda {}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
