//! The model's fused operations: one trait over burn's backends, with defaults composed of
//! burn's own operations, handwritten kernels for the CPU, and backward passes for autodiff.
//!
//! Every default is what its kernel is tested against.

mod autodiff;
mod composed;
// The CPU makes its masks on the way, by rows.
#[cfg(any(feature = "cuda", test))]
mod dropout;
pub(crate) mod flex;

use std::sync::Arc;

pub use composed::{CHUNK, QUERIES};

use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

use super::llama;
use super::lora::DropoutMask;
use super::packed::Packed;
use super::sequences::Sequences;

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads that follow each other.
    pub kv_heads: usize,
    /// Features of a head; even.
    pub dim: usize,
    /// Rows that a row attends to, itself included; all before it where `None`.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// What scores are multiplied with: `1 / sqrt(dim)` (Vaswani et al., 2017).
    pub fn scale(&self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }
}

/// Rotary tables with one line for each row, `[rows, dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotation<F> {
    /// Cosines.
    pub cos: F,
    /// Sines.
    pub sin: F,
}

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the position.
    Forward,
    /// Back again: the adjoint.
    Back,
}

impl Turn {
    /// The other way.
    pub fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

/// What attention gives.
#[derive(Debug, Clone)]
pub struct Attended<F> {
    /// The weighted values, `[rows, heads * dim]`.
    pub context: F,
    /// The logarithm of the softmax's sum for each score row, `[heads, rows]`.
    pub sums: F,
}

/// The loss of the output layer, with the gradients that were asked for.
#[derive(Debug, Clone)]
pub struct HeadLoss<F> {
    /// Sum of the rows' cross-entropies in nats, `[1]`.
    pub loss: F,
    /// By the rows, `[rows, hidden]`.
    pub rows_gradient: Option<F>,
    /// By the output layer, `[vocab, hidden]`.
    pub weight_gradient: Option<F>,
}

/// Operations that the model needs beyond burn's own. The defaults run on any backend.
pub trait FusedOps: Backend {
    /// Root-mean-square norm of each row (Zhang and Sennrich, 2019, eq. 4):
    /// `x / sqrt(mean(x^2) + eps) * weight`, with `x` `[rows, width]`, `weight` `[1, width]`.
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        composed::rms_norm::<Self>(x, weight, eps)
    }

    /// The gradients of [`FusedOps::rms_norm`] by `x` and, where asked for, by `weight`.
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
        by_weight: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        composed::rms_norm_backward::<Self>(x, weight, gradient, eps, by_weight)
    }

    /// `silu(gate) * up` (Shazeer, 2020), elementwise.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::swiglu::<Self>(gate, up)
    }

    /// The gradients of [`FusedOps::swiglu`] by `gate` and `up`.
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::swiglu_backward::<Self>(gate, up, gradient)
    }

    /// Turns the pairs `(i, i + dim / 2)` of each head of each row (Su et al., 2021), `x`
    /// `[rows, heads * dim]`.
    fn rotate(
        x: FloatTensor<Self>,
        dim: usize,
        rotation: Rotation<FloatTensor<Self>>,
        turn: Turn,
    ) -> FloatTensor<Self> {
        composed::rotate::<Self>(x, dim, rotation, turn)
    }

    /// Causal attention within each sequence: `q` `[rows, heads * dim]`, `k` and `v`
    /// `[rows, kv_heads * dim]`. The scores of all rows are never held at a time.
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: &AttentionShape,
        sequences: &Sequences,
    ) -> Attended<FloatTensor<Self>> {
        composed::causal_attention::<Self>(q, k, v, shape, sequences)
    }

    /// The gradients of the context of [`FusedOps::causal_attention`] by `q`, `k` and `v`.
    fn causal_attention_backward(
        inputs: [FloatTensor<Self>; 3],
        attended: Attended<FloatTensor<Self>>,
        gradient: FloatTensor<Self>,
        shape: &AttentionShape,
        sequences: &Sequences,
    ) -> [FloatTensor<Self>; 3] {
        composed::causal_attention_backward::<Self>(inputs, attended, gradient, shape, sequences)
    }

    /// Sum of the rows' cross-entropies, `[1]`, and `softmax(logits) - onehot(targets)`, both in
    /// `f32` where the logits are in fewer bits.
    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: &[u32],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::cross_entropy::<Self>(logits, targets)
    }

    /// Cross-entropy of `rows * weight^T` against `targets`, summed. Goes through the rows in
    /// chunks and takes the gradients on the way, so that the logits are never held whole.
    fn head_loss(
        rows: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: Arc<[u32]>,
        by_rows: bool,
        by_weight: bool,
    ) -> HeadLoss<FloatTensor<Self>> {
        composed::head_loss::<Self>(rows, weight, &targets, by_rows, by_weight)
    }

    /// `x weight^T` with a weight in fewer bits, `[rows, in]` to `[rows, out]`.
    fn packed_product(x: FloatTensor<Self>, weight: &Packed<Self>) -> FloatTensor<Self> {
        composed::packed_product::<Self>(x, weight)
    }

    /// Rows of a matrix in fewer bits, `[ids, columns]`, in `f32`.
    fn packed_rows(weight: &Packed<Self>, ids: &[u32]) -> FloatTensor<Self> {
        composed::unwrap(weight.select(llama::ids(ids, &weight.words.device())))
    }

    /// What each element of a dropped-out input is multiplied with, `[rows, width]`: zero or
    /// the factor that keeps the mean. One mask gives the same every time, on one backend.
    fn dropout_factors(
        mask: &DropoutMask,
        shape: [usize; 2],
        device: &Self::Device,
    ) -> FloatTensor<Self> {
        let mut factors = vec![1.0_f32; shape[0] * shape[1]];
        mask.scale(&mut factors, 0);
        Self::float_from_data(TensorData::new(factors, shape), device)
    }
}

#[cfg(feature = "cuda")]
impl FusedOps for burn_cuda::Cuda {
    fn dropout_factors(
        mask: &DropoutMask,
        shape: [usize; 2],
        device: &Self::Device,
    ) -> FloatTensor<Self> {
        dropout::factors::<Self>(mask, shape, device)
    }
}

#[cfg(test)]
mod tests;
