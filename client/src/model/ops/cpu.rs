//! The operations as single passes over memory, for burn's CPU backend.
//!
//! Loops run over rows, in parallel where a tensor is large. Sums over rows go by chunks of
//! a fixed size in a fixed order, so that results do not depend on the number of threads.

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bytes, DType, Shape, TensorMetadata};
use burn_flex::{Flex, FlexTensor, Layout};
use rayon::prelude::*;

use super::{FusedOps, Heads, Rotation};

/// Elements a task goes through; smaller tensors stay on one thread.
const GRAIN: usize = 1 << 14;

/// A contiguous tensor's values.
fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>()
        .expect("an f32 tensor made contiguous just before")
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// Rows of `width` elements that one task takes.
fn rows_a_task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// `e^x` for `x <= 88`, to about 2e-7 relative: `2^n e^r` with `n` the nearest integer to
/// `x / ln 2` and a Taylor polynomial for `e^r`. Without branches, so that loops vectorize.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer, which then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; the first has few enough bits for an exact product with `n`.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let tail = 1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0));
    let power = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * tail)));
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// A sum in eight lanes: vectorizes, and always in the same order.
#[inline(always)]
fn sum_by(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let whole = count / 8 * 8;
    for start in (0..whole).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let mut sum = lanes.iter().sum::<f32>();
    for index in whole..count {
        sum += term(index);
    }
    sum
}

fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    let squares = sum_by(row.len(), |i| row[i] * row[i]);
    1.0 / (squares / row.len() as f32 + eps).sqrt()
}

/// Splits (`forward`) or merges heads, turning pairs by `sin * sign`.
fn regroup(
    x: FlexTensor,
    heads: Heads,
    rotation: Option<Rotation<FlexTensor>>,
    split: bool,
) -> Vec<f32> {
    let x = x.to_contiguous();
    let source = values(&x);
    let tables = rotation.map(|tables| (tables.cos.to_contiguous(), tables.sin.to_contiguous()));
    let tables = tables.as_ref().map(|(cos, sin)| (values(cos), values(sin)));
    let Heads {
        length,
        heads: count,
        dim,
        ..
    } = heads;
    let half = dim / 2;
    let sign = if split { 1.0 } else { -1.0 };
    let mut out = vec![0.0_f32; source.len()];
    // One task writes the rows of one head (split) or of one sequence (merge).
    let block = if split {
        length * dim
    } else {
        length * count * dim
    };
    let turn = |from: &[f32], to: &mut [f32], position: usize| match tables {
        None => to.copy_from_slice(from),
        Some((cos, sin)) => {
            let cos = &cos[position * half..][..half];
            let sin = &sin[position * half..][..half];
            let (first, second) = from.split_at(half);
            let (to_first, to_second) = to.split_at_mut(half);
            for i in 0..half {
                let sin = sin[i] * sign;
                to_first[i] = first[i] * cos[i] - second[i] * sin;
                to_second[i] = second[i] * cos[i] + first[i] * sin;
            }
        }
    };
    out.par_chunks_mut(block.max(1))
        .with_min_len(rows_a_task(block))
        .enumerate()
        .for_each(|(index, block)| {
            if split {
                let (sequence, head) = (index / count, index % count);
                for (position, to) in block.chunks_exact_mut(dim).enumerate() {
                    let start = ((sequence * length + position) * count + head) * dim;
                    turn(&source[start..start + dim], to, position);
                }
            } else {
                for (row, to) in block.chunks_exact_mut(dim).enumerate() {
                    let (position, head) = (row / count, row % count);
                    let start = ((index * count + head) * length + position) * dim;
                    turn(&source[start..start + dim], to, position);
                }
            }
        });
    out
}

impl FusedOps for Flex {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let (input, scale) = (values(&x), values(&weight));
        let width = scale.len();
        let mut out = vec![0.0_f32; input.len()];
        out.par_chunks_mut(width)
            .zip(input.par_chunks(width))
            .with_min_len(rows_a_task(width))
            .for_each(|(out, row)| {
                let inverse = inverse_rms(row, eps as f32);
                for i in 0..width {
                    out[i] = row[i] * inverse * scale[i];
                }
            });
        tensor(out, x.shape())
    }

    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        eps: f64,
        by_weight: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
        let gradient = gradient.to_contiguous();
        let (input, scale, gradients) = (values(&x), values(&weight), values(&gradient));
        let width = scale.len();
        let mut out = vec![0.0_f32; input.len()];
        let task = rows_a_task(width) * width;
        let sums: Vec<Vec<f32>> = out
            .par_chunks_mut(task)
            .zip(input.par_chunks(task))
            .zip(gradients.par_chunks(task))
            .map(|((out, input), gradients)| {
                let mut sums = vec![0.0_f32; if by_weight { width } else { 0 }];
                for ((out, row), gradient) in out
                    .chunks_exact_mut(width)
                    .zip(input.chunks_exact(width))
                    .zip(gradients.chunks_exact(width))
                {
                    let inverse = inverse_rms(row, eps as f32);
                    let dot = sum_by(width, |i| gradient[i] * scale[i] * row[i]);
                    let mean = dot * inverse * inverse / width as f32;
                    for i in 0..width {
                        out[i] = (gradient[i] * scale[i] - row[i] * mean) * inverse;
                    }
                    for (sum, i) in sums.iter_mut().zip(0..) {
                        let i: usize = i;
                        *sum += gradient[i] * row[i] * inverse;
                    }
                }
                sums
            })
            .collect();
        let by_weight = by_weight.then(|| {
            let mut total = vec![0.0_f32; width];
            for sums in sums {
                for (total, sum) in total.iter_mut().zip(sums) {
                    *total += sum;
                }
            }
            tensor(total, weight.shape())
        });
        (tensor(out, x.shape()), by_weight)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let mut out = vec![0.0_f32; values(&gate).len()];
        out.par_chunks_mut(GRAIN)
            .zip(values(&gate).par_chunks(GRAIN))
            .zip(values(&up).par_chunks(GRAIN))
            .for_each(|((out, gate), up)| {
                for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate * sigmoid(gate) * up;
                }
            });
        tensor(out, gate.shape())
    }

    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let gradient = gradient.to_contiguous();
        let count = values(&gate).len();
        let (mut by_gate, mut by_up) = (vec![0.0_f32; count], vec![0.0_f32; count]);
        by_gate
            .par_chunks_mut(GRAIN)
            .zip(by_up.par_chunks_mut(GRAIN))
            .zip(values(&gate).par_chunks(GRAIN))
            .zip(values(&up).par_chunks(GRAIN))
            .zip(values(&gradient).par_chunks(GRAIN))
            .for_each(|((((by_gate, by_up), gate), up), gradient)| {
                for i in 0..gate.len() {
                    let sigma = sigmoid(gate[i]);
                    let silu = gate[i] * sigma;
                    by_gate[i] = gradient[i] * up[i] * (sigma + silu * (1.0 - sigma));
                    by_up[i] = gradient[i] * silu;
                }
            });
        (tensor(by_gate, gate.shape()), tensor(by_up, gate.shape()))
    }

    fn split_heads(
        x: FloatTensor<Self>,
        heads: Heads,
        rotation: Option<Rotation<FloatTensor<Self>>>,
    ) -> FloatTensor<Self> {
        let out = regroup(x, heads, rotation, true);
        tensor(out, [heads.batch, heads.heads, heads.length, heads.dim])
    }

    fn merge_heads(
        x: FloatTensor<Self>,
        heads: Heads,
        rotation: Option<Rotation<FloatTensor<Self>>>,
    ) -> FloatTensor<Self> {
        let out = regroup(x, heads, rotation, false);
        tensor(out, [heads.batch * heads.length, heads.heads * heads.dim])
    }

    fn causal_softmax(scores: FloatTensor<Self>, scale: f64) -> FloatTensor<Self> {
        let shape = scores.shape();
        let (rows, length) = (shape[1], shape[2]);
        let scale = scale as f32;
        let mut scores = scores.to_contiguous();
        scores
            .storage_mut::<f32>()
            .par_chunks_mut(length)
            .with_min_len(rows_a_task(length))
            .enumerate()
            .for_each(|(row, scores)| {
                let (seen, hidden) = scores.split_at_mut(row % rows % length + 1);
                let largest = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                for score in seen.iter_mut() {
                    *score = exp((*score - largest) * scale);
                }
                let inverse = 1.0 / sum_by(seen.len(), |i| seen[i]);
                for score in seen {
                    *score *= inverse;
                }
                hidden.fill(0.0);
            });
        scores
    }

    fn causal_softmax_backward(
        probabilities: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let shape = probabilities.shape();
        let (rows, length) = (shape[1], shape[2]);
        let scale = scale as f32;
        let probabilities = probabilities.to_contiguous();
        let mut gradient = gradient.to_contiguous();
        gradient
            .storage_mut::<f32>()
            .par_chunks_mut(length)
            .zip(values(&probabilities).par_chunks(length))
            .with_min_len(rows_a_task(length))
            .enumerate()
            .for_each(|(row, (gradient, p))| {
                let seen = row % rows % length + 1;
                let (gradient, hidden) = gradient.split_at_mut(seen);
                let p = &p[..seen];
                let mean = sum_by(seen, |i| p[i] * gradient[i]);
                for (gradient, p) in gradient.iter_mut().zip(p) {
                    *gradient = p * (*gradient - mean) * scale;
                }
                hidden.fill(0.0);
            });
        gradient
    }

    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: &[u32],
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let vocab = logits.shape()[1];
        let mut logits = logits.to_contiguous();
        let losses: Vec<f32> = logits
            .storage_mut::<f32>()
            .par_chunks_mut(vocab)
            .zip(targets.par_iter())
            .with_min_len(rows_a_task(vocab))
            .map(|(row, &target)| {
                let target = target as usize;
                let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let chosen = row[target] - largest;
                for logit in row.iter_mut() {
                    *logit = exp(*logit - largest);
                }
                let sum = sum_by(vocab, |i| row[i]);
                let inverse = 1.0 / sum;
                for value in row.iter_mut() {
                    *value *= inverse;
                }
                row[target] -= 1.0;
                sum.ln() - chosen
            })
            .collect();
        let loss = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        (tensor(vec![loss as f32], [1]), logits)
    }
}
