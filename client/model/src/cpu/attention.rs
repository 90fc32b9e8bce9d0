//! Causal attention over sequences of rows, without the matrix of all scores: a block of
//! queries at a time. The backward pass recomputes the scores from the logarithms of the
//! softmax's sums (Dao et al., FlashAttention, 2022, without the tiles of keys, which
//! a CPU's caches do not need).
//!
//! Queries are `[rows, heads * dim]`, keys and values `[rows, kv_heads * dim]`, rotated
//! already. A row attends to the rows of its own sequence up to itself, at most `window`.

use std::ops::Range;

use faer::{MatMut, MatRef};
use pulp::{Arch, Simd, with_simd};
use rayon::prelude::*;

use super::rows::{Store, matrix, matrix_mut, multiply};
use super::simd::{dot_product, exp, largest, sum_by};
use crate::ops::arguments::AttentionShape;
use crate::sequences::Sequences;

/// Queries of a block.
const BLOCK: usize = 64;

/// One block of queries of one sequence: rows of the sequence, and the keys that they see.
struct QueryBlock {
    queries: Range<usize>,
    keys: Range<usize>,
    window: usize,
}

impl QueryBlock {
    fn of(rows: &Range<usize>, window: Option<usize>) -> impl Iterator<Item = Self> {
        let (length, window) = (rows.len(), window.unwrap_or(usize::MAX));
        (0..length).step_by(BLOCK).map(move |start| {
            let end = (start + BLOCK).min(length);
            Self {
                queries: start..end,
                keys: (start + 1).saturating_sub(window)..end,
                window,
            }
        })
    }

    /// The keys that a query of the block sees, as indices from the block's first key.
    #[inline(always)]
    fn seen(&self, query: usize) -> Range<usize> {
        let position = self.queries.start + query;
        let first = (position + 1).saturating_sub(self.window);
        first - self.keys.start..position + 1 - self.keys.start
    }
}

/// Writes the context to `context`, `[rows, heads * dim]`, and the logarithms of the
/// softmax's sums to `sums`, `[heads, rows]`.
pub(crate) fn forward(
    [q, k, v]: [&[f32]; 3],
    shape: &AttentionShape,
    sequences: &Sequences,
    context: &mut [f32],
    sums: &mut [f32],
) {
    let AttentionShape {
        heads,
        kv_heads,
        dim,
        window,
        ..
    } = *shape;
    let (wide, narrow) = (heads * dim, kv_heads * dim);
    let (q, k, v) = (matrix(q, wide), matrix(k, narrow), matrix(v, narrow));
    let scale = shape.scale as f32;
    let sums = divide_sums(sums, heads, sequences);
    let targets = divide_heads(matrix_mut(context, wide), heads, dim, sequences);
    let tasks: Vec<_> = places(heads, sequences).zip(targets).zip(sums).collect();
    tasks.into_par_iter().with_max_len(1).for_each_init(
        Vec::new,
        |scores, (((rows, head), mut target), sums)| {
            let (start, length) = (rows.start, rows.len());
            let kv = head / (heads / kv_heads) * dim;
            let q = q.submatrix(start, head * dim, length, dim);
            let k = k.submatrix(start, kv, length, dim);
            let v = v.submatrix(start, kv, length, dim);
            for block in QueryBlock::of(&rows, window) {
                let (queries, keys) = (block.queries.clone(), block.keys.clone());
                let (count, width) = (queries.len(), keys.len());
                scores.resize(count * width, 0.0);
                let part = q.subrows(queries.start, count);
                let seen = k.subrows(keys.start, width).transpose();
                multiply(matrix_mut(scores, width), Store::Replace, part, seen, scale);
                softmax(scores, &block, &mut sums[queries.clone()]);
                let values = v.subrows(keys.start, width);
                let target = target.as_mut().subrows_mut(queries.start, count);
                multiply(target, Store::Replace, matrix(scores, width), values, 1.0);
            }
        },
    );
}

/// Inputs and results of [`forward`] that the backward pass needs, in the same layouts.
pub(crate) struct SavedAttention<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) context: &'a [f32],
    pub(crate) sums: &'a [f32],
}

/// Writes the gradients by q, k and v, given the `gradient` by the context.
pub(crate) fn backward(
    attended: &SavedAttention<'_>,
    gradient: &[f32],
    shape: &AttentionShape,
    sequences: &Sequences,
    [by_q, by_k, by_v]: [&mut [f32]; 3],
) {
    let AttentionShape {
        heads,
        kv_heads,
        dim,
        window,
        ..
    } = *shape;
    let (wide, narrow, group) = (heads * dim, kv_heads * dim, heads / kv_heads);
    let (q, k, v) = (
        matrix(attended.q, wide),
        matrix(attended.k, narrow),
        matrix(attended.v, narrow),
    );
    let (context, gradient) = (matrix(attended.context, wide), matrix(gradient, wide));
    let scale = shape.scale as f32;
    let total = sequences.rows();
    // A task has a key head: the query heads that share it add to the same gradients.
    let by_q = divide_heads(matrix_mut(by_q, wide), kv_heads, group * dim, sequences);
    let by_k = divide_heads(matrix_mut(by_k, narrow), kv_heads, dim, sequences);
    let by_v = divide_heads(matrix_mut(by_v, narrow), kv_heads, dim, sequences);
    let targets = by_q.into_iter().zip(by_k).zip(by_v);
    let tasks: Vec<_> = places(kv_heads, sequences).zip(targets).collect();
    tasks.into_par_iter().with_max_len(1).for_each_init(
        || (Vec::new(), Vec::new()),
        |(scores, slopes), ((rows, kv), ((mut by_q, mut by_k), mut by_v))| {
            let (start, length) = (rows.start, rows.len());
            by_k.fill(0.0);
            by_v.fill(0.0);
            let k = k.submatrix(start, kv * dim, length, dim);
            let v = v.submatrix(start, kv * dim, length, dim);
            for member in 0..group {
                let head = kv * group + member;
                let q = q.submatrix(start, head * dim, length, dim);
                let context = context.submatrix(start, head * dim, length, dim);
                let gradient = gradient.submatrix(start, head * dim, length, dim);
                let sums = &attended.sums[head * total + start..][..length];
                for block in QueryBlock::of(&rows, window) {
                    let (queries, keys) = (block.queries.clone(), block.keys.clone());
                    let (count, width) = (queries.len(), keys.len());
                    scores.resize(count * width, 0.0);
                    slopes.resize(count * width, 0.0);
                    let q = q.subrows(queries.start, count);
                    let out = gradient.subrows(queries.start, count);
                    let context = context.subrows(queries.start, count);
                    let k = k.subrows(keys.start, width);
                    let v = v.subrows(keys.start, width);
                    multiply(
                        matrix_mut(scores, width),
                        Store::Replace,
                        q,
                        k.transpose(),
                        scale,
                    );
                    multiply(
                        matrix_mut(slopes, width),
                        Store::Replace,
                        out,
                        v.transpose(),
                        1.0,
                    );
                    let dots = row_dots(out, context);
                    softmax_backward(scores, slopes, &block, &sums[queries.clone()], &dots, scale);
                    let p = matrix(scores, width).transpose();
                    let target = by_v.as_mut().subrows_mut(keys.start, width);
                    multiply(target, Store::Add, p, out, 1.0);
                    let slopes = matrix(slopes, width);
                    let target =
                        by_q.as_mut()
                            .submatrix_mut(queries.start, member * dim, count, dim);
                    multiply(target, Store::Replace, slopes, k, 1.0);
                    let target = by_k.as_mut().subrows_mut(keys.start, width);
                    multiply(target, Store::Add, slopes.transpose(), q, 1.0);
                }
            }
        },
    );
}

/// Each sequence with each head, in the order of [`divide_heads`].
fn places(heads: usize, sequences: &Sequences) -> impl Iterator<Item = (Range<usize>, usize)> {
    sequences
        .iter()
        .flat_map(move |rows| (0..heads).map(move |head| (rows.clone(), head)))
}

/// The part of each sequence and head of `[rows, heads * dim]`.
fn divide_heads<'a>(
    mut whole: MatMut<'a, f32>,
    heads: usize,
    dim: usize,
    sequences: &Sequences,
) -> Vec<MatMut<'a, f32>> {
    let mut parts = Vec::with_capacity(sequences.len() * heads);
    for rows in sequences.iter() {
        let (mut here, later) = whole.split_at_row_mut(rows.len());
        whole = later;
        for _ in 0..heads {
            let (head, rest) = here.split_at_col_mut(dim);
            here = rest;
            parts.push(head);
        }
    }
    parts
}

/// The part of each sequence and head of `[heads, rows]`.
fn divide_sums<'a>(sums: &'a mut [f32], heads: usize, sequences: &Sequences) -> Vec<&'a mut [f32]> {
    let rows = sequences.rows();
    let mut by_head: Vec<Vec<&mut [f32]>> = sums
        .chunks_exact_mut(rows.max(1))
        .map(|mut head| {
            let mut parts: Vec<_> = sequences
                .iter()
                .map(|rows| {
                    let (part, rest) = std::mem::take(&mut head).split_at_mut(rows.len());
                    head = rest;
                    part
                })
                .collect();
            parts.reverse();
            parts
        })
        .collect();
    let mut parts = Vec::with_capacity(sequences.len() * heads);
    for _ in 0..sequences.len() {
        parts.extend(by_head.iter_mut().filter_map(Vec::pop));
    }
    parts
}

/// Softmax of each row over the keys that it sees, zero elsewhere.
#[with_simd(softmax = Arch::new())]
#[inline(always)]
fn softmax_with_simd<'a, S: Simd>(
    _simd: S,
    scores: &'a mut [f32],
    block: &'a QueryBlock,
    sums: &'a mut [f32],
) {
    let width = block.keys.len();
    for (query, (row, sum)) in scores.chunks_exact_mut(width).zip(sums).enumerate() {
        let seen = block.seen(query);
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        let row = &mut row[seen];
        let most = largest(row);
        for score in row.iter_mut() {
            *score = exp(*score - most);
        }
        let total = sum_by(row.len(), |i| row[i]);
        let inverse = 1.0 / total;
        for score in row {
            *score *= inverse;
        }
        *sum = most + total.ln();
    }
}

/// Scores to probabilities, and the probabilities' gradients in `slopes` to those of the
/// unscaled scores: `scale * p (slope - dot)`.
#[with_simd(softmax_backward = Arch::new())]
#[inline(always)]
fn softmax_backward_with_simd<'a, S: Simd>(
    _simd: S,
    scores: &'a mut [f32],
    slopes: &'a mut [f32],
    block: &'a QueryBlock,
    sums: &'a [f32],
    dots: &'a [f32; BLOCK],
    scale: f32,
) {
    let width = block.keys.len();
    for (query, ((row, slopes), &sum)) in scores
        .chunks_exact_mut(width)
        .zip(slopes.chunks_exact_mut(width))
        .zip(sums)
        .enumerate()
    {
        let seen = block.seen(query);
        for part in [0..seen.start, seen.end..width] {
            row[part.clone()].fill(0.0);
            slopes[part].fill(0.0);
        }
        let dot = dots[query];
        for (score, slope) in row[seen.clone()].iter_mut().zip(&mut slopes[seen]) {
            *score = exp(*score - sum);
            *slope = *score * (*slope - dot) * scale;
        }
    }
}

/// The dot product of each row of one block with that of the other.
fn row_dots(left: MatRef<'_, f32>, right: MatRef<'_, f32>) -> [f32; BLOCK] {
    let mut dots = [0.0; BLOCK];
    for (row, dot) in dots.iter_mut().enumerate().take(left.nrows()) {
        let rows = (
            left.row(row).try_as_row_major(),
            right.row(row).try_as_row_major(),
        );
        if let (Some(left), Some(right)) = rows {
            let (left, right) = (left.as_slice(), right.as_slice());
            *dot = dot_product(left, right);
        }
    }
    dots
}
