//! Root-mean-square norm and SwiGLU on slices of rows, forward and backward.

use pulp::{Arch, Simd, with_simd};

use super::simd::{sigmoid, sum_by};

#[inline(always)]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    let squares = sum_by(row.len(), |i| row[i] * row[i]);
    1.0 / (squares / row.len() as f32 + eps).sqrt()
}

/// `x / sqrt(mean(x^2) + eps) * weight` of each row (Zhang and Sennrich, 2019, eq. 4).
#[with_simd(rms_norm = Arch::new())]
#[inline(always)]
pub(crate) fn rms_norm_with_simd<'a, S: Simd>(
    _simd: S,
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
) {
    let width = weight.len();
    for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let inverse = inverse_rms(row, eps);
        for i in 0..width {
            out[i] = row[i] * inverse * weight[i];
        }
    }
}

/// The gradient of [`rms_norm`] by `x`, added to `by_x`; and that by `weight`, where asked
/// for, added to `by_weight`.
///
/// With `n = x / rms`: `dx = (g w - n mean(g w n)) / rms`.
#[with_simd(rms_norm_backward = Arch::new())]
#[inline(always)]
pub(crate) fn rms_norm_backward_with_simd<'a, S: Simd>(
    _simd: S,
    x: &'a [f32],
    weight: &'a [f32],
    gradient: &'a [f32],
    eps: f32,
    by_x: &'a mut [f32],
    mut by_weight: Option<&'a mut [f32]>,
) {
    let width = weight.len();
    for ((row, gradient), by_x) in x
        .chunks_exact(width)
        .zip(gradient.chunks_exact(width))
        .zip(by_x.chunks_exact_mut(width))
    {
        let inverse = inverse_rms(row, eps);
        let dot = sum_by(width, |i| gradient[i] * weight[i] * row[i]);
        let mean = dot * inverse * inverse / width as f32;
        for i in 0..width {
            by_x[i] += (gradient[i] * weight[i] - row[i] * mean) * inverse;
        }
        if let Some(sums) = &mut by_weight {
            for i in 0..width {
                sums[i] += gradient[i] * row[i] * inverse;
            }
        }
    }
}

/// `silu(gate) * up` (Shazeer, 2020).
#[with_simd(swiglu = Arch::new())]
#[inline(always)]
pub(crate) fn swiglu_with_simd<'a, S: Simd>(
    _simd: S,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate * sigmoid(gate) * up;
    }
}

/// Puts the gradients of [`swiglu`] in the place of its inputs.
#[with_simd(swiglu_backward = Arch::new())]
#[inline(always)]
pub(crate) fn swiglu_backward_with_simd<'a, S: Simd>(
    _simd: S,
    gate: &'a mut [f32],
    up: &'a mut [f32],
    gradient: &'a [f32],
) {
    for ((gate, up), &gradient) in gate.iter_mut().zip(up).zip(gradient) {
        let sigma = sigmoid(*gate);
        let silu = *gate * sigma;
        *gate = gradient * *up * (sigma + silu * (1.0 - sigma));
        *up = gradient * silu;
    }
}
