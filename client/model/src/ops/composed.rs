//! The operations, composed of burn's own: right on every backend, fast on none.

use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData, TensorMetadata};

use super::FusedOps;
use super::arguments::{AttentionOutput, AttentionShape, HeadLoss, Rotation, Turn};
use crate::config::Activation;
use crate::packed::Packed;
use crate::primitive::{product, raw, transposed_product, wrap};
use crate::sequences::Sequences;

/// What sums of products are held in: `f32`, or `f64` where the inputs are.
fn wide(dtype: DType) -> FloatDType {
    if dtype == DType::F64 {
        FloatDType::F64
    } else {
        FloatDType::F32
    }
}

/// Scores held at a time, of all heads: few launches for short sequences, and no more memory for
/// long ones. Tests have several chunks with fewer.
const SCORES: usize = if cfg!(test) { 1 << 14 } else { 1 << 26 };

/// Queries whose scores are held at a time, where `heads` heads see `rows` rows.
pub fn queries_at_a_time(heads: usize, rows: usize) -> usize {
    (SCORES / (heads * rows).max(1)).max(64)
}

/// Rows of logits held at a time.
pub const CHUNK: usize = 512;

/// The same values in the type of sums.
fn widened<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    let x = wrap::<B, D>(x);
    let dtype = wide(x.dtype());
    x.cast(dtype)
}

/// The same values in the type of what was given.
fn narrowed<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> FloatTensor<B> {
    raw(x.cast(dtype))
}

/// Each row reduced to one value, `[rows, 1]`, in two goes where the width allows: a GPU goes through
/// a row with few threads, and rows are long.
fn by_row<B: Backend>(
    x: Tensor<B, 2>,
    reduce: impl Fn(Tensor<B, 3>, usize) -> Tensor<B, 3>,
) -> Tensor<B, 2> {
    let [rows, width] = x.dims();
    // Half of the bits of a width that is a power of two.
    let each = 1 << width.trailing_zeros().min(width.max(2).ilog2().div_ceil(2));
    let parts = reduce(x.reshape([rows, width / each, each]), 2).reshape([rows, width / each, 1]);
    reduce(parts, 1).reshape([rows, 1])
}

/// The mean of each row, `[rows, 1]`.
fn mean_by_row<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let width = x.dims()[1];
    by_row(x, Tensor::sum_dim).div_scalar(width as f64)
}

fn inverse_rms<B: Backend>(x: &Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
    mean_by_row(x.clone().powi_scalar(2))
        .add_scalar(eps)
        .sqrt()
        .recip()
}

pub(super) fn rms_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widened::<B, 2>(x);
    let weight = wrap::<B, 2>(weight).cast(x.dtype());
    let inverse = inverse_rms(&x, eps);
    narrowed(x * inverse * weight, dtype)
}

pub(super) fn rms_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    eps: f64,
    by_weight: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let (dtype, weight_dtype) = (x.dtype(), weight.dtype());
    let x = widened::<B, 2>(x);
    let weight = wrap::<B, 2>(weight).cast(x.dtype());
    let gradient = widened::<B, 2>(gradient);
    let inverse = inverse_rms(&x, eps);
    let normed = x * inverse.clone();
    let by_weight =
        by_weight.then(|| narrowed((gradient.clone() * normed.clone()).sum_dim(0), weight_dtype));
    // With n = x / rms: dx = (g w - n mean(g w n)) / rms.
    let scaled = gradient * weight;
    let mean = mean_by_row(scaled.clone() * normed.clone());
    (
        narrowed((scaled - normed * mean) * inverse, dtype),
        by_weight,
    )
}

/// Twice the root of `2 / pi`: half of one plus a hyperbolic tangent is a sigmoid of twice its
/// argument.
const GELU: f64 = 2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
/// The factor of the cube.
const GELU_CUBE: f64 = 0.044_715;

/// What the sigmoid of an activation `x sigmoid(u(x))` is of.
fn argument<B: Backend>(activation: Activation, x: &Tensor<B, 2>) -> Tensor<B, 2> {
    match activation {
        Activation::Silu => x.clone(),
        Activation::GeluTanh => {
            let square = x.clone().powi_scalar(2);
            x.clone() * (square.mul_scalar(GELU * GELU_CUBE).add_scalar(GELU))
        }
    }
}

pub(super) fn gated<B: Backend>(
    activation: Activation,
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = gate.dtype();
    let (gate, up) = (widened::<B, 2>(gate), widened::<B, 2>(up));
    let sigma = sigmoid(argument(activation, &gate));
    narrowed(gate * sigma * up, dtype)
}

pub(super) fn gated_backward<B: Backend>(
    activation: Activation,
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = gate.dtype();
    let (gate, up) = (widened::<B, 2>(gate), widened::<B, 2>(up));
    let gradient = widened::<B, 2>(gradient);
    let sigma = sigmoid(argument(activation, &gate));
    let active = gate.clone() * sigma.clone();
    // With a = x sigma(u(x)): a' = sigma + a (1 - sigma) u'.
    let mut slope = active.clone() * (sigma.clone().neg() + 1.0);
    if activation == Activation::GeluTanh {
        let square = gate.powi_scalar(2);
        slope = slope * (square.mul_scalar(3.0 * GELU * GELU_CUBE).add_scalar(GELU));
    }
    let slope = sigma + slope;
    (
        narrowed(gradient.clone() * up * slope, dtype),
        narrowed(gradient * active, dtype),
    )
}

pub(super) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    dim: usize,
    rotation: Rotation<FloatTensor<B>>,
    turn: Turn,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = widened::<B, 2>(x);
    let [rows, width] = x.dims();
    let (heads, half) = (width / dim, dim / 2);
    let sign = match turn {
        Turn::Forward => 1.0,
        Turn::Back => -1.0,
    };
    let table = |table| {
        wrap::<B, 2>(table)
            .cast(x.dtype())
            .reshape([rows, 1, half])
            .expand([rows, heads, half])
    };
    let (cos, sin) = (table(rotation.cos), table(rotation.sin).mul_scalar(sign));
    let x = x.reshape([rows, heads, dim]);
    let first = x.clone().slice([0..rows, 0..heads, 0..half]);
    let second = x.slice([0..rows, 0..heads, half..dim]);
    let turned = Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        2,
    );
    narrowed(turned.reshape([rows, width]), dtype)
}

/// Sequences of one length that follow each other: their first row, number and length.
fn runs(sequences: &Sequences) -> Vec<(usize, usize, usize)> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for rows in sequences.iter() {
        match runs.last_mut() {
            Some((_, count, length)) if *length == rows.len() => *count += 1,
            _ => runs.push((rows.start, 1, rows.len())),
        }
    }
    runs.retain(|(_, _, length)| *length > 0);
    runs
}

/// Sequences of one length as `[count * kv_heads, group, length, dim]` of `[rows, width]`.
fn heads_of<B: Backend>(
    x: &Tensor<B, 2>,
    (start, count, length): (usize, usize, usize),
    shape: &AttentionShape,
) -> Tensor<B, 4> {
    let width = x.dims()[1];
    let group = width / (shape.kv_heads * shape.dim);
    x.clone()
        .slice([start..start + count * length, 0..width])
        .reshape([count, length, shape.kv_heads, group, shape.dim])
        .permute([0, 2, 3, 1, 4])
        .reshape([count * shape.kv_heads, group, length, shape.dim])
}

/// The inverse of [`heads_of`].
fn rows_of<B: Backend>(
    x: Tensor<B, 4>,
    (_, count, length): (usize, usize, usize),
    shape: &AttentionShape,
) -> Tensor<B, 2> {
    let group = x.dims()[1];
    x.reshape([count, shape.kv_heads, group, length, shape.dim])
        .permute([0, 3, 1, 2, 4])
        .reshape([count * length, shape.kv_heads * group * shape.dim])
}

/// A chunk of queries with the keys that they see.
struct QueryChunk {
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
}

impl QueryChunk {
    fn of(
        (_, count, length): (usize, usize, usize),
        shape: &AttentionShape,
    ) -> impl Iterator<Item = Self> {
        let at_a_time = queries_at_a_time(shape.heads, count * length);
        let window = shape.window;
        (0..length).step_by(at_a_time).map(move |start| {
            let end = (start + at_a_time).min(length);
            let first = (start + 1).saturating_sub(window.unwrap_or(usize::MAX));
            Self {
                queries: start..end,
                keys: first..end,
            }
        })
    }

    /// What a query does not see, `[queries, keys]`.
    fn hidden<B: Backend>(&self, window: Option<usize>, device: &B::Device) -> Tensor<B, 2, Bool> {
        let size = [self.queries.len(), self.keys.len()];
        let offset = (self.queries.start - self.keys.start) as i64;
        // True above the diagonal of the query itself.
        let later: Tensor<B, 2, Bool> = Tensor::tril_mask(size, offset, device);
        match window {
            Some(window) if self.queries.end > window => {
                let diagonal = offset - (window as i64 - 1);
                let earlier: Tensor<B, 2, Bool> = Tensor::triu_mask(size, diagonal, device);
                later.bool_or(earlier)
            }
            _ => later,
        }
    }

    /// The queries of a group of heads, which share their keys, below each other:
    /// `[heads, group * queries, dim]`.
    fn rows<B: Backend>(&self, x: &Tensor<B, 4>) -> Tensor<B, 3> {
        let [heads, group, _, dim] = x.dims();
        let count = self.queries.len();
        x.clone()
            .slice([0..heads, 0..group, self.queries.clone(), 0..dim])
            .reshape([heads, group * count, dim])
    }

    /// The inverse of [`rows`](Self::rows).
    fn queries<B: Backend>(&self, x: Tensor<B, 3>) -> Tensor<B, 4> {
        let [heads, rows, dim] = x.dims();
        let count = self.queries.len();
        x.reshape([heads, rows / count, count, dim])
    }

    /// Keys or values that the queries see, `[heads, keys, dim]`.
    fn seen<B: Backend>(&self, x: &Tensor<B, 4>) -> Tensor<B, 3> {
        let [heads, _, _, dim] = x.dims();
        x.clone()
            .slice([0..heads, 0..1, self.keys.clone(), 0..dim])
            .reshape([heads, self.keys.len(), dim])
    }

    /// `scale q k^T` of [`rows`](Self::rows) and what they see, with what is not seen at negative
    /// infinity, in `f32`: `[heads, group * queries, keys]`.
    fn scores<B: FusedOps>(
        &self,
        q: &Tensor<B, 3>,
        k: &Tensor<B, 3>,
        shape: &AttentionShape,
    ) -> Tensor<B, 3> {
        let [heads, rows, _] = q.dims();
        let (count, width) = (self.queries.len(), self.keys.len());
        let apart = [heads, rows / count, count, width];
        let hidden = self
            .hidden::<B>(shape.window, &q.device())
            .reshape([1, 1, count, width])
            .expand(apart);
        product(q.clone(), k.clone().swap_dims(1, 2))
            .reshape(apart)
            .cast(wide(q.dtype()))
            .mul_scalar(shape.scale)
            .mask_fill(hidden, f32::NEG_INFINITY)
            .reshape([heads, rows, width])
    }
}

pub(super) fn causal_attention<B: FusedOps>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    shape: &AttentionShape,
    sequences: &Sequences,
) -> AttentionOutput<FloatTensor<B>> {
    let (q, k, v) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v));
    let dtype = q.dtype();
    let (mut contexts, mut all_sums) = (Vec::new(), Vec::new());
    for run in runs(sequences) {
        let (_, count, length) = run;
        let (q, k, v) = (
            heads_of(&q, run, shape),
            heads_of(&k, run, shape),
            heads_of(&v, run, shape),
        );
        let (mut parts, mut sums) = (Vec::new(), Vec::new());
        for chunk in QueryChunk::of(run, shape) {
            let scores = chunk.scores(&chunk.rows(&q), &chunk.seen(&k), shape);
            let most = scores.clone().max_dim(2);
            let exponentials = (scores - most.clone()).exp();
            let sum = exponentials.clone().sum_dim(2);
            let p = exponentials.div(sum.clone()).cast(dtype);
            parts.push(chunk.queries(product(p, chunk.seen(&v))));
            sums.push(chunk.queries(most + sum.log()));
        }
        contexts.push(rows_of(Tensor::cat(parts, 2), run, shape));
        let sums = Tensor::cat(sums, 2)
            .reshape([count, shape.heads, length])
            .permute([1, 0, 2])
            .reshape([shape.heads, count * length]);
        all_sums.push(sums);
    }
    AttentionOutput {
        context: raw(Tensor::cat(contexts, 0)),
        sums: raw(Tensor::cat(all_sums, 1)),
    }
}

pub(super) fn causal_attention_backward<B: FusedOps>(
    [q, k, v]: [FloatTensor<B>; 3],
    attended: AttentionOutput<FloatTensor<B>>,
    gradient: FloatTensor<B>,
    shape: &AttentionShape,
    sequences: &Sequences,
) -> [FloatTensor<B>; 3] {
    let (q, k, v) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v));
    let dtype = q.dtype();
    let (context, sums) = (wrap::<B, 2>(attended.context), wrap::<B, 2>(attended.sums));
    let gradient = wrap::<B, 2>(gradient);
    let mut found: [Vec<Tensor<B, 2>>; 3] = Default::default();
    for run in runs(sequences) {
        let (start, count, length) = run;
        let of = |x| heads_of(x, run, shape);
        let (q, k, v, context, gradient) = (of(&q), of(&k), of(&v), of(&context), of(&gradient));
        let [heads, group, _, dim] = q.dims();
        let sums = sums
            .clone()
            .slice([0..shape.heads, start..start + count * length])
            .reshape([shape.kv_heads, group, count, length])
            .permute([2, 0, 1, 3])
            .reshape([heads, group, length, 1]);
        let mut by_q = Vec::new();
        let mut by_k = Tensor::<B, 3>::zeros([heads, length, dim], &q.device()).cast(wide(dtype));
        let mut by_v = by_k.clone();
        for chunk in QueryChunk::of(run, shape) {
            let (q, gradient) = (chunk.rows(&q), chunk.rows(&gradient));
            let (k, v) = (chunk.seen(&k), chunk.seen(&v));
            let p = (chunk.scores(&q, &k, shape) - chunk.rows(&sums)).exp();
            let by_p = product(gradient.clone(), v.swap_dims(1, 2)).cast(wide(dtype));
            let dots = (gradient.clone() * chunk.rows(&context))
                .cast(wide(dtype))
                .sum_dim(2);
            let slopes = (p.clone() * (by_p - dots))
                .mul_scalar(shape.scale)
                .cast(dtype);
            by_q.push(chunk.queries(product(slopes.clone(), k)));
            // Query heads of a group share their keys: the product adds their gradients up.
            let keys = [0..heads, chunk.keys.clone(), 0..dim];
            let add = |sum: Tensor<B, 3>, part: Tensor<B, 3>| {
                let part = part.cast(wide(dtype)) + sum.clone().slice(keys.clone());
                sum.slice_assign(keys.clone(), part)
            };
            by_v = add(by_v, transposed_product(p.cast(dtype), gradient));
            by_k = add(by_k, transposed_product(slopes, q));
        }
        let [by_k, by_v] = [by_k, by_v].map(|sum| sum.cast(dtype).reshape([heads, 1, length, dim]));
        let parts = [Tensor::cat(by_q, 2), by_k, by_v];
        for (found, part) in found.iter_mut().zip(parts) {
            found.push(rows_of(part, run, shape));
        }
    }
    found.map(|parts| raw(Tensor::cat(parts, 0)))
}

pub(super) fn cross_entropy<B: Backend>(
    logits: FloatTensor<B>,
    targets: &[u32],
) -> (FloatTensor<B>, FloatTensor<B>) {
    let logits = widened::<B, 2>(logits);
    let device = logits.device();
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    let ids: Tensor<B, 2, Int> =
        Tensor::from_data(TensorData::new(ids, [targets.len(), 1]), &device);
    let dtype = logits.dtype();
    let shifted = logits.clone() - by_row(logits, Tensor::max_dim);
    let log_probabilities = shifted.clone() - by_row(shifted.exp(), Tensor::sum_dim).log();
    let loss = log_probabilities.clone().gather(1, ids.clone()).sum().neg();
    let minus_one = Tensor::<B, 2>::ones([targets.len(), 1], &device)
        .cast(dtype)
        .neg();
    let gradient =
        log_probabilities
            .exp()
            .scatter(1, ids, minus_one, burn::tensor::IndexingUpdateOp::Add);
    (raw(loss), raw(gradient))
}

pub(super) fn head_loss<B: FusedOps>(
    rows: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: &[u32],
    by_rows: bool,
    by_weight: bool,
    cross_entropy: impl Fn(FloatTensor<B>, &[u32]) -> (FloatTensor<B>, FloatTensor<B>),
) -> HeadLoss<FloatTensor<B>> {
    debug_assert_eq!(rows.shape()[0], targets.len());
    let (rows, weight) = (wrap::<B, 2>(rows), wrap::<B, 2>(weight));
    let width = rows.dims()[1];
    let mut loss: Option<Tensor<B, 1>> = None;
    let mut rows_gradient = Vec::new();
    let mut weight_gradient: Option<Tensor<B, 2>> = None;
    for (index, targets) in targets.chunks(CHUNK).enumerate() {
        let start = index * CHUNK;
        let part = rows.clone().slice([start..start + targets.len(), 0..width]);
        let logits = product(part.clone(), weight.clone().transpose());
        let (chunk_loss, gradient) = cross_entropy(raw(logits), targets);
        let chunk_loss = wrap::<B, 1>(chunk_loss);
        loss = Some(match loss {
            Some(loss) => loss + chunk_loss,
            None => chunk_loss,
        });
        let gradient = wrap::<B, 2>(gradient).cast(part.dtype());
        if by_rows {
            rows_gradient.push(product(gradient.clone(), weight.clone()));
        }
        if by_weight {
            let chunk = transposed_product(gradient, part);
            weight_gradient = Some(match weight_gradient {
                Some(sum) => sum + chunk,
                None => chunk,
            });
        }
    }
    let loss =
        loss.unwrap_or_else(|| Tensor::<B, 1>::zeros([1], &rows.device()).cast(wide(rows.dtype())));
    HeadLoss {
        loss: raw(loss),
        rows_gradient: (!rows_gradient.is_empty()).then(|| raw(Tensor::cat(rows_gradient, 0))),
        weight_gradient: weight_gradient.map(raw),
    }
}

pub(super) fn packed_product<B: FusedOps>(x: FloatTensor<B>, weight: &Packed<B>) -> FloatTensor<B> {
    let weight = weight.unpack_as(x.dtype().into());
    raw(product(wrap::<B, 2>(x), weight.transpose()))
}
