//! The end of the model: last norm, output layer and cross-entropy, a chunk of rows at a
//! time, gradients taken on the way, so that the logits are never held whole.

use pulp::{Arch, Simd, with_simd};
use rayon::prelude::*;

use super::elementwise::{rms_norm, rms_norm_backward};
use super::pool::Pool;
use super::projection::Frozen;
use super::rows::{Into, matrix, matrix_mut, multiply};
use super::simd::{exp, largest, sum_by};
use crate::gradients::Score;

/// Most logits of a chunk: 32 MiB.
const LOGITS: usize = 8 << 20;
/// Rows of a chunk: fewer would read the output layer too often, more would leave the caches.
const ROWS: std::ops::RangeInclusive<usize> = 32..=256;
/// Tokens of the vocabulary that are unpacked at a time.
const PANEL: usize = 1024;

/// The end of the model on the host.
pub(crate) struct Head<'a> {
    pub(crate) norm: &'a [f32],
    pub(crate) eps: f32,
    /// `[vocab, hidden]`.
    pub(crate) weight: Frozen<'a>,
    pub(crate) vocab: usize,
}

impl Head<'_> {
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
        match self.weight {
            Frozen::Dense(weight) => {
                let right = matrix(weight, hidden).transpose();
                multiply(
                    matrix_mut(&mut logits, self.vocab),
                    Into::Replace,
                    left,
                    right,
                    1.0,
                );
            }
            Frozen::Packed(packed) => {
                let mut target = matrix_mut(&mut logits, self.vocab);
                for start in (0..self.vocab).step_by(PANEL) {
                    let end = (start + PANEL).min(self.vocab);
                    scratch.resize((end - start) * hidden, 0.0);
                    packed.unpack_rows(start..end, scratch);
                    let right = matrix(scratch, hidden).transpose();
                    let part = target.as_mut().subcols_mut(start, end - start);
                    multiply(part, Into::Replace, left, right, 1.0);
                }
            }
        }
        let mut score = Score::default();
        for (row, &target) in logits.chunks_exact_mut(self.vocab).zip(targets) {
            let (loss, correct) = cross_entropy(row, target as usize, gradient);
            score.loss += f64::from(loss);
            score.correct += usize::from(correct);
        }
        if gradient {
            let mut by_normed = normed;
            let left = matrix(&logits, self.vocab);
            match self.weight {
                Frozen::Dense(weight) => {
                    let right = matrix(weight, hidden);
                    multiply(
                        matrix_mut(&mut by_normed, hidden),
                        Into::Replace,
                        left,
                        right,
                        1.0,
                    );
                }
                Frozen::Packed(packed) => {
                    let mut into = Into::Replace;
                    for start in (0..self.vocab).step_by(PANEL) {
                        let end = (start + PANEL).min(self.vocab);
                        scratch.resize((end - start) * hidden, 0.0);
                        packed.unpack_rows(start..end, scratch);
                        let part = left.subcols(start, end - start);
                        let right = matrix(scratch, hidden);
                        multiply(matrix_mut(&mut by_normed, hidden), into, part, right, 1.0);
                        into = Into::Add;
                    }
                }
            }
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
#[allow(clippy::needless_lifetimes)] // The macro needs the name.
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
