//! The model's fused operations: one trait over burn's backends, with defaults composed of
//! burn's own operations, handwritten kernels for the CPU, and backward passes for autodiff.
//!
//! Every default is what its kernel is tested against.

pub(crate) mod arguments;
mod autodiff;
mod composed;
// The CPU makes its masks on the way, by rows.
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(feature = "cuda", test))]
mod dropout;
pub(crate) mod flex;

use std::sync::Arc;

pub use arguments::{AttentionOutput, AttentionShape, HeadLoss, Rotation, Turn};
pub use composed::{CHUNK, queries_at_a_time};

use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

use super::config::Activation;
use super::dropout::DropoutMask;
use super::packed::Packed;
use super::primitive::{ids, raw};
use super::sequences::Sequences;

/// Operations that the model needs beyond burn's own. The defaults run on any backend.
pub trait FusedOps: Backend {
    /// Lengths of sequences that are a multiple of it are computed faster, by more than rows
    /// without meaning at a sequence's end cost.
    const ALIGNMENT: usize = 1;

    /// `x y` for each of a batch, `[.., rows, inner]` and `[.., inner, columns]` to
    /// `[.., rows, columns]`.
    fn product(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_matmul(x, y)
    }

    /// `x^T y` for each of a batch, `[.., inner, rows]` and `[.., inner, columns]` to
    /// `[.., rows, columns]`.
    fn transposed_product(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::product(Self::float_transpose(x), y)
    }

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

    /// `activation(gate) * up` (Shazeer, 2020), elementwise.
    fn gated(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        composed::gated::<Self>(activation, gate, up)
    }

    /// The gradients of [`FusedOps::gated`] by `gate` and `up`.
    fn gated_backward(
        activation: Activation,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::gated_backward::<Self>(activation, gate, up, gradient)
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
    ) -> AttentionOutput<FloatTensor<Self>> {
        composed::causal_attention::<Self>(q, k, v, shape, sequences)
    }

    /// The gradients of the context of [`FusedOps::causal_attention`] by `q`, `k` and `v`.
    fn causal_attention_backward(
        inputs: [FloatTensor<Self>; 3],
        attended: AttentionOutput<FloatTensor<Self>>,
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
        composed::head_loss::<Self>(
            rows,
            weight,
            &targets,
            by_rows,
            by_weight,
            Self::cross_entropy,
        )
    }

    /// `x weight^T` with a weight in fewer bits, `[rows, in]` to `[rows, out]`.
    fn packed_product(x: FloatTensor<Self>, weight: &Packed<Self>) -> FloatTensor<Self> {
        composed::packed_product::<Self>(x, weight)
    }

    /// Rows of a matrix in fewer bits, `[ids, columns]`, in `f32`.
    fn packed_rows(weight: &Packed<Self>, rows: &[u32]) -> FloatTensor<Self> {
        raw(weight.select(ids(rows, &weight.words.device())))
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

#[cfg(test)]
mod tests;
