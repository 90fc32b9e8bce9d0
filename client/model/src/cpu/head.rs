//! The end of the model: last norm, output layer and cross-entropy, a chunk of rows at a
//! time, gradients taken on the way, so that the logits are never held whole.

use pulp::{Arch, Simd, with_simd};
use rayon::prelude::*;

use super::elementwise::{rms_norm, rms_norm_backward};
use super::frozen::{Frozen, Panels};
use super::pool::Pool;
use super::rows::{Store, matrix, matrix_mut};
use super::simd::{exp, largest, sum_by};
use crate::gradients::Score;

/// Most logits of a chunk: 32 MiB.
const LOGITS: usize = 8 << 20;
/// Rows of a chunk: fewer would read the output layer too often, more would leave the caches.
const ROWS: std::ops::RangeInclusive<usize> = 32..=256;
/// Tokens of the vocabulary that are unpacked at a time.
const PANEL: usize = 1024;

/// The end of the model on the host.
pub(crate) struct OutputHead<'a> {
    pub(crate) norm: &'a [f32],
    pub(crate) eps: f32,
    /// `[vocab, hidden]`.
    pub(crate) weight: Frozen<'a>,
    pub(crate) vocab: usize,
    /// Factor of the logits.
    pub(crate) scale: f32,
}

impl OutputHead<'_> {
    fn rows(&self, count: usize) -> usize {
        let most = (LOGITS / self.vocab).clamp(*ROWS.start(), *ROWS.end());
        most.min(
            count
                .div_ceil(rayon::current_num_threads())
                .max(*ROWS.start()),
        )
    }

    /// Scores `rows`, `[targets, hidden]`; where `gradient` is set, the rows become the
    /// gradients of the loss by themselves.
    pub(crate) fn score(
        &self,
        rows: &mut [f32],
        targets: &[u32],
        gradient: bool,
        pool: &Pool,
    ) -> Score {
        let hidden = self.norm.len();
        let chunk = self.rows(targets.len());
        let scores: Vec<Score> = rows
            .par_chunks_mut(chunk * hidden)
            .zip(targets.par_chunks(chunk))
            .with_max_len(1)
            .map(|(rows, targets)| self.chunk(rows, targets, gradient, pool))
            .collect();
        scores
            .into_iter()
            .fold(Score::default(), |sum, part| Score {
                loss: sum.loss + part.loss,
                correct: sum.correct + part.correct,
            })
    }

    fn chunk(&self, rows: &mut [f32], targets: &[u32], gradient: bool, pool: &Pool) -> Score {
        let hidden = self.norm.len();
        let mut normed = pool.take(rows.len());
        rms_norm(rows, self.norm, self.eps, &mut normed);
        let mut logits = pool.take(targets.len() * self.vocab);
        let mut held = pool.scratch();
        let scratch = &mut held.scratch.wide;
        let left = matrix(&normed, hidden);
        let panels = Panels {
            weight: self.weight,
            input: hidden,
            output: self.vocab,
            rows: PANEL,
            scale: self.scale,
        };
        panels.forward(left, matrix_mut(&mut logits, self.vocab), scratch);
        let mut score = Score::default();
        for (row, &target) in logits.chunks_exact_mut(self.vocab).zip(targets) {
            let (loss, correct) = cross_entropy(row, target as usize, gradient);
            score.loss += f64::from(loss);
            score.correct += usize::from(correct);
        }
        if gradient {
            let mut by_normed = normed;
            let by_logits = matrix(&logits, self.vocab);
            let target = matrix_mut(&mut by_normed, hidden);
            panels.backward(by_logits, target, Store::Replace, scratch);
            let mut by_rows = pool.zeros(rows.len());
            rms_norm_backward(rows, self.norm, &by_normed, self.eps, &mut by_rows, None);
            rows.copy_from_slice(&by_rows);
            pool.give(by_rows);
            pool.give(by_normed);
        } else {
            pool.give(normed);
        }
        pool.give(logits);
        score
    }
}

/// The cross-entropy of a row of logits and whether the target is its largest. Where
/// `gradient` is set, the logits become the gradient: the softmax less one at the target.
#[with_simd(cross_entropy = Arch::new())]
#[inline(always)]
#[allow(clippy::needless_lifetimes, reason = "the macro needs the name")]
pub(crate) fn cross_entropy_with_simd<'a, S: Simd>(
    _simd: S,
    row: &'a mut [f32],
    target: usize,
    gradient: bool,
) -> (f32, bool) {
    let most = largest(row);
    let chosen = row[target] - most;
    let sum = if gradient {
        for logit in row.iter_mut() {
            *logit = exp(*logit - most);
        }
        let sum = sum_by(row.len(), |i| row[i]);
        let inverse = 1.0 / sum;
        for value in row.iter_mut() {
            *value *= inverse;
        }
        row[target] -= 1.0;
        sum
    } else {
        sum_by(row.len(), |i| exp(row[i] - most))
    };
    (sum.ln() - chosen, chosen == 0.0)
}
