//! What a block's forward pass leaves for its backward pass.

use super::pool::Pool;

/// Activations that the forward pass keeps for the backward pass.
pub(crate) struct Kept {
    /// The block's input.
    pub(super) x: Vec<f32>,
    /// Queries and keys before their norms; empty where they have none.
    pub(super) raw: [Vec<f32>; 2],
    /// Rotated queries and keys, and values.
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<f32>,
    pub(super) v: Vec<f32>,
    pub(super) context: Vec<f32>,
    pub(super) sums: Vec<f32>,
    /// The rows of `context` that the feed-forward layers see, where those are not all.
    pub(super) seen: Option<Vec<f32>>,
    /// What attention and the feed-forward part give before their norms; empty where they have none.
    pub(super) given: [Vec<f32>; 2],
    /// The residual stream after attention.
    pub(super) middle: Vec<f32>,
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    /// The low-rank pairs' inner activations `x A^T`, `[rows, rank]`.
    pub(super) inner: [Vec<f32>; 7],
}

impl Kept {
    /// Returns all buffers to the pool but the input, which it hands out.
    pub(super) fn release(self, pool: &Pool) -> Vec<f32> {
        for buffer in [
            self.q,
            self.k,
            self.v,
            self.context,
            self.sums,
            self.middle,
            self.gate,
            self.up,
        ]
        .into_iter()
        .chain(self.raw)
        .chain(self.given)
        .chain(self.inner)
        .chain(self.seen)
        {
            pool.give(buffer);
        }
        self.x
    }
}
