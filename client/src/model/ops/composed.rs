//! The operations, composed of burn's own: right on every backend, fast on none.

use burn::tensor::activation::{log_softmax, sigmoid, softmax};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, Int, Tensor, TensorData, TensorMetadata, TensorPrimitive};

use super::{FusedOps, HeadLoss, Heads, Rotation};

/// Rows of logits held at a time.
const CHUNK: usize = 512;

pub(super) fn wrap<B: FusedOps, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

pub(super) fn unwrap<B: FusedOps, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

fn inverse_rms<B: FusedOps>(x: &Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
    x.clone()
        .powi_scalar(2)
        .mean_dim(1)
        .add_scalar(eps)
        .sqrt()
        .recip()
}

pub(super) fn rms_norm<B: FusedOps>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let (x, weight) = (wrap::<B, 2>(x), wrap::<B, 2>(weight));
    let inverse = inverse_rms(&x, eps);
    unwrap(x * inverse * weight)
}

pub(super) fn rms_norm_backward<B: FusedOps>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    gradient: FloatTensor<B>,
    eps: f64,
    by_weight: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let (x, weight) = (wrap::<B, 2>(x), wrap::<B, 2>(weight));
    let gradient = wrap::<B, 2>(gradient);
    let inverse = inverse_rms(&x, eps);
    let normed = x * inverse.clone();
    let by_weight = by_weight.then(|| unwrap((gradient.clone() * normed.clone()).sum_dim(0)));
    // With n = x / rms: dx = (g w - n mean(g w n)) / rms.
    let scaled = gradient * weight;
    let mean = (scaled.clone() * normed.clone()).mean_dim(1);
    (unwrap((scaled - normed * mean) * inverse), by_weight)
}

pub(super) fn swiglu<B: FusedOps>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let (gate, up) = (wrap::<B, 2>(gate), wrap::<B, 2>(up));
    unwrap(gate.clone() * sigmoid(gate) * up)
}

pub(super) fn swiglu_backward<B: FusedOps>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (gate, up) = (wrap::<B, 2>(gate), wrap::<B, 2>(up));
    let gradient = wrap::<B, 2>(gradient);
    let sigma = sigmoid(gate.clone());
    let silu = gate * sigma.clone();
    // silu' = sigma + silu (1 - sigma).
    let slope = sigma.clone() + silu.clone() * (sigma.neg() + 1.0);
    (
        unwrap(gradient.clone() * up * slope),
        unwrap(gradient * silu),
    )
}

fn rotate<B: FusedOps>(
    x: Tensor<B, 4>,
    heads: Heads,
    rotation: Rotation<FloatTensor<B>>,
    sign: f64,
) -> Tensor<B, 4> {
    let half = heads.dim / 2;
    let table = |table| {
        wrap::<B, 2>(table)
            .slice([0..heads.length, 0..half])
            .reshape([1, 1, heads.length, half])
            .expand([heads.batch, heads.heads, heads.length, half])
    };
    let (cos, sin) = (table(rotation.cos), table(rotation.sin).mul_scalar(sign));
    let mut halves = x.chunk(2, 3).into_iter();
    let (Some(first), Some(second)) = (halves.next(), halves.next()) else {
        unreachable!("a head's width is even");
    };
    Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    )
}

pub(super) fn split_heads<B: FusedOps>(
    x: FloatTensor<B>,
    heads: Heads,
    rotation: Option<Rotation<FloatTensor<B>>>,
) -> FloatTensor<B> {
    let x = wrap::<B, 2>(x)
        .reshape([heads.batch, heads.length, heads.heads, heads.dim])
        .swap_dims(1, 2);
    unwrap(match rotation {
        Some(rotation) => rotate(x, heads, rotation, 1.0),
        None => x,
    })
}

pub(super) fn merge_heads<B: FusedOps>(
    x: FloatTensor<B>,
    heads: Heads,
    rotation: Option<Rotation<FloatTensor<B>>>,
) -> FloatTensor<B> {
    let x = wrap::<B, 4>(x);
    let x = match rotation {
        Some(rotation) => rotate(x, heads, rotation, -1.0),
        None => x,
    };
    unwrap(
        x.swap_dims(1, 2)
            .reshape([heads.batch * heads.length, heads.heads * heads.dim]),
    )
}

pub(super) fn causal_softmax<B: FusedOps>(scores: FloatTensor<B>, scale: f64) -> FloatTensor<B> {
    let scores = wrap::<B, 3>(scores);
    let [groups, rows, length] = scores.dims();
    let hidden: Tensor<B, 2, Bool> = Tensor::tril_mask([length, length], 0, &scores.device());
    let hidden = hidden
        .reshape([1, 1, length, length])
        .expand([groups, rows / length, length, length])
        .reshape([groups, rows, length]);
    unwrap(softmax(
        scores
            .mul_scalar(scale)
            .mask_fill(hidden, f32::NEG_INFINITY),
        2,
    ))
}

pub(super) fn causal_softmax_backward<B: FusedOps>(
    probabilities: FloatTensor<B>,
    gradient: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let p = wrap::<B, 3>(probabilities);
    let weighted = p.clone() * wrap::<B, 3>(gradient);
    let mean = weighted.clone().sum_dim(2);
    unwrap((weighted - p * mean).mul_scalar(scale))
}

pub(super) fn cross_entropy<B: FusedOps>(
    logits: FloatTensor<B>,
    targets: &[u32],
) -> (FloatTensor<B>, FloatTensor<B>) {
    let logits = wrap::<B, 2>(logits);
    let device = logits.device();
    let ids: Vec<i32> = targets.iter().map(|&id| id as i32).collect();
    let ids: Tensor<B, 2, Int> =
        Tensor::from_data(TensorData::new(ids, [targets.len(), 1]), &device);
    let log_probabilities = log_softmax(logits, 1);
    let loss = log_probabilities.clone().gather(1, ids.clone()).sum().neg();
    let minus_one = Tensor::<B, 2>::ones([targets.len(), 1], &device).neg();
    let gradient =
        log_probabilities
            .exp()
            .scatter(1, ids, minus_one, burn::tensor::IndexingUpdateOp::Add);
    (unwrap(loss), unwrap(gradient))
}

pub(super) fn head_loss<B: FusedOps>(
    rows: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: &[u32],
    by_rows: bool,
    by_weight: bool,
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
        let logits = part.clone().matmul(weight.clone().transpose());
        let (chunk_loss, gradient) = B::cross_entropy(unwrap(logits), targets);
        let chunk_loss = wrap::<B, 1>(chunk_loss);
        loss = Some(match loss {
            Some(loss) => loss + chunk_loss,
            None => chunk_loss,
        });
        let gradient = wrap::<B, 2>(gradient);
        if by_rows {
            rows_gradient.push(gradient.clone().matmul(weight.clone()));
        }
        if by_weight {
            let chunk = gradient.transpose().matmul(part);
            weight_gradient = Some(match weight_gradient {
                Some(sum) => sum + chunk,
                None => chunk,
            });
        }
    }
    let loss = loss.unwrap_or_else(|| Tensor::zeros([1], &rows.device()));
    HeadLoss {
        loss: unwrap(loss),
        rows_gradient: (!rows_gradient.is_empty()).then(|| unwrap(Tensor::cat(rows_gradient, 0))),
        weight_gradient: weight_gradient.map(unwrap),
    }
}
