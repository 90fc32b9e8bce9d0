//! A frozen projection with its bias and its low-rank pair, on slices of rows:
//! `y = r x W^T + b + s (d(x) A^T) B^T`, with `d` the dropout of the pair's input.

use super::frozen::{Frozen, Panels};
use super::pool::Scratch;
use super::rows::{Store, matrix, matrix_mut, multiply};
use super::simd::add;
use crate::dropout::DropoutMask;

/// Output features that are unpacked at a time.
const PANEL: usize = 256;

/// A low-rank pair on the host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// `[rank, in]`.
    pub(crate) a: &'a [f32],
    /// `[out, rank]`.
    pub(crate) b: &'a [f32],
    /// Rows of A: the width of the inner activations.
    pub(crate) rank: usize,
    /// Factor of the pair's product.
    pub(crate) scale: f32,
    /// Dropout of the pair's input, in training.
    pub(crate) dropout: Option<DropoutMask>,
}

/// A projection from `input` to `output` features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Projection<'a> {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) weight: Frozen<'a>,
    /// Factor of the frozen product.
    pub(crate) scale: f32,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) pair: Option<Pair<'a>>,
}

/// Where the gradients of a pair are added up; `None` for a factor that is not trained.
#[derive(Debug, Default)]
pub(crate) struct PairGradient {
    /// `[rank, in]`.
    pub(crate) a: Option<Vec<f32>>,
    /// `[out, rank]`.
    pub(crate) b: Option<Vec<f32>>,
}

impl Projection<'_> {
    /// The pair's rank, or 0 without one.
    pub(crate) fn rank(&self) -> usize {
        self.pair.map_or(0, |pair| pair.rank)
    }

    /// Writes the projection of `x` to `y`, and the pair's inner activations to `inner`,
    /// `[rows, rank]`. `first` is the number of the first row, for dropout.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        y: &mut [f32],
        inner: &mut [f32],
        first: usize,
        scratch: &mut Vec<f32>,
    ) {
        let rows = matrix(x, self.input);
        self.panels()
            .forward(rows, matrix_mut(y, self.output), scratch);
        if let Some(bias) = self.bias {
            for row in y.chunks_exact_mut(self.output) {
                add(row, bias);
            }
        }
        if let Some(pair) = &self.pair {
            let seen = pair.seen(x, self.input, first, scratch);
            let a = matrix(pair.a, self.input).transpose();
            multiply(
                matrix_mut(inner, pair.rank),
                Store::Replace,
                matrix(seen, self.input),
                a,
                1.0,
            );
            let b = matrix(pair.b, pair.rank).transpose();
            let inner = matrix(inner, pair.rank);
            multiply(matrix_mut(y, self.output), Store::Add, inner, b, pair.scale);
        }
    }

    /// Adds the gradients of the pair to `gradient`, and, where `by_x` is given, puts that by
    /// `x` into it.
    #[expect(clippy::too_many_arguments, reason = "each is another matrix")]
    pub(crate) fn backward(
        &self,
        x: &[f32],
        inner: &[f32],
        by_y: &[f32],
        by_x: Option<(&mut [f32], Store)>,
        gradient: &mut PairGradient,
        first: usize,
        scratch: &mut Scratch,
    ) {
        let mut by_x = by_x;
        if let Some((target, store)) = &mut by_x {
            let target = matrix_mut(target, self.input);
            let by_y = matrix(by_y, self.output);
            self.panels()
                .backward(by_y, target, *store, &mut scratch.wide);
        }
        let Some(pair) = &self.pair else { return };
        let out = matrix(by_y, self.output);
        if let Some(by_b) = &mut gradient.b {
            let inner = matrix(inner, pair.rank);
            multiply(
                matrix_mut(by_b, pair.rank),
                Store::Add,
                out.transpose(),
                inner,
                pair.scale,
            );
        }
        if gradient.a.is_none() && by_x.is_none() {
            return;
        }
        let rows = x.len() / self.input;
        let by_inner = &mut scratch.narrow;
        by_inner.resize(rows * pair.rank, 0.0);
        let b = matrix(pair.b, pair.rank);
        multiply(
            matrix_mut(by_inner, pair.rank),
            Store::Replace,
            out,
            b,
            pair.scale,
        );
        let by_inner = matrix(by_inner, pair.rank);
        if let Some(by_a) = &mut gradient.a {
            let seen = pair.seen(x, self.input, first, &mut scratch.wide);
            let target = matrix_mut(by_a, self.input);
            multiply(
                target,
                Store::Add,
                by_inner.transpose(),
                matrix(seen, self.input),
                1.0,
            );
        }
        if let Some((target, _)) = by_x {
            let a = matrix(pair.a, self.input);
            match pair.dropout {
                None => multiply(matrix_mut(target, self.input), Store::Add, by_inner, a, 1.0),
                Some(dropout) => {
                    let wide = &mut scratch.wide;
                    wide.resize(x.len(), 0.0);
                    multiply(
                        matrix_mut(wide, self.input),
                        Store::Replace,
                        by_inner,
                        a,
                        1.0,
                    );
                    dropout.add(wide, target, first * self.input);
                }
            }
        }
    }

    fn panels(&self) -> Panels<'_> {
        Panels {
            weight: self.weight,
            input: self.input,
            output: self.output,
            rows: PANEL,
            scale: self.scale,
        }
    }
}

impl Pair<'_> {
    /// What the pair sees of `x`: all of it, or a copy with dropout in `scratch`.
    fn seen<'b>(
        &self,
        x: &'b [f32],
        width: usize,
        first: usize,
        scratch: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        match self.dropout {
            None => x,
            Some(dropout) => {
                scratch.resize(x.len(), 0.0);
                dropout.copy(x, scratch, first * width);
                scratch
            }
        }
    }
}
