//! The model's fused operations: one trait over burn's backends, with defaults composed of
//! burn's own operations, handwritten kernels for the CPU, and backward passes for autodiff.
//!
//! Every default is what its kernel is tested against.

mod autodiff;
mod composed;
mod cpu;

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

/// How rows of features divide into heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Sequences in the batch.
    pub batch: usize,
    /// Tokens in each.
    pub length: usize,
    /// Heads.
    pub heads: usize,
    /// Features in each.
    pub dim: usize,
}

/// Rotary tables for at least as many positions as a batch has tokens, `[positions, dim / 2]`.
#[derive(Debug, Clone)]
pub struct Rotation<F> {
    /// Cosines.
    pub cos: F,
    /// Sines.
    pub sin: F,
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

    /// `[batch * length, heads * dim]` to `[batch, heads, length, dim]`, rotated by position
    /// where tables are given.
    fn split_heads(
        x: FloatTensor<Self>,
        heads: Heads,
        rotation: Option<Rotation<FloatTensor<Self>>>,
    ) -> FloatTensor<Self> {
        composed::split_heads::<Self>(x, heads, rotation)
    }

    /// The adjoint of [`FusedOps::split_heads`]: the inverse rotation, then
    /// `[batch, heads, length, dim]` to `[batch * length, heads * dim]`.
    fn merge_heads(
        x: FloatTensor<Self>,
        heads: Heads,
        rotation: Option<Rotation<FloatTensor<Self>>>,
    ) -> FloatTensor<Self> {
        composed::merge_heads::<Self>(x, heads, rotation)
    }

    /// Softmax of `scale * scores` over the keys up to each row's own position; zero beyond.
    /// `scores` is `[groups, rows, length]`, where row `r` stands at position `r % length`.
    fn causal_softmax(scores: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        composed::causal_softmax::<Self>(scores, scale)
    }

    /// The gradient of [`FusedOps::causal_softmax`] by `scores`, given its result.
    fn causal_softmax_backward(
        probabilities: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        composed::causal_softmax_backward::<Self>(probabilities, gradient, scale)
    }

    /// Sum of the rows' cross-entropies, `[1]`, and `softmax(logits) - onehot(targets)`.
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
}

#[cfg(feature = "cuda")]
impl FusedOps for burn_cuda::Cuda {}

#[cfg(test)]
mod tests;
