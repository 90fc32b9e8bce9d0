//! Root-mean-square norm and gated activations on slices of rows, forward and backward.

use pulp::{Arch, Simd, with_simd};

use super::simd::{sigmoid, sum_by};
use crate::config::Activation;

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

/// An activation `x sigmoid(u(x))`, as [`Activation`] has them, with what its gradient needs.
trait Sigmoidal {
    /// `u(x)`.
    fn argument(x: f32) -> f32;
    /// `u'(x)`.
    fn slope(x: f32) -> f32;
}

struct Silu;

impl Sigmoidal for Silu {
    #[inline(always)]
    fn argument(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn slope(_: f32) -> f32 {
        1.0
    }
}

/// Half of one plus a hyperbolic tangent is a sigmoid of twice its argument.
struct GeluTanh;

impl GeluTanh {
    /// Twice the root of `2 / pi`.
    const FACTOR: f32 = 2.0 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    /// The factor of the cube.
    const CUBE: f32 = 0.044_715 * Self::FACTOR;
}

impl Sigmoidal for GeluTanh {
    #[inline(always)]
    fn argument(x: f32) -> f32 {
        x * (Self::FACTOR + Self::CUBE * x * x)
    }

    #[inline(always)]
    fn slope(x: f32) -> f32 {
        Self::FACTOR + 3.0 * Self::CUBE * x * x
    }
}

#[inline(always)]
fn forward<A: Sigmoidal>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate * sigmoid(A::argument(gate)) * up;
    }
}

#[inline(always)]
fn backward<A: Sigmoidal>(gate: &mut [f32], up: &mut [f32], gradient: &[f32]) {
    for ((gate, up), &gradient) in gate.iter_mut().zip(up).zip(gradient) {
        let sigma = sigmoid(A::argument(*gate));
        let active = *gate * sigma;
        // An argument that overflows has a sigmoid of 0 or 1, and no slope.
        let bend = active * (1.0 - sigma);
        let slope = if bend == 0.0 {
            0.0
        } else {
            bend * A::slope(*gate)
        };
        *gate = gradient * *up * (sigma + slope);
        *up = gradient * active;
    }
}

/// `activation(gate) * up` (Shazeer, 2020).
#[with_simd(gated = Arch::new())]
#[inline(always)]
pub(crate) fn gated_with_simd<'a, S: Simd>(
    _simd: S,
    activation: Activation,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
) {
    match activation {
        Activation::Silu => forward::<Silu>(gate, up, out),
        Activation::GeluTanh => forward::<GeluTanh>(gate, up, out),
    }
}

/// Puts the gradients of [`gated`] in the place of its inputs.
#[with_simd(gated_backward = Arch::new())]
#[inline(always)]
pub(crate) fn gated_backward_with_simd<'a, S: Simd>(
    _simd: S,
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a mut [f32],
    gradient: &'a [f32],
) {
    match activation {
        Activation::Silu => backward::<Silu>(gate, up, gradient),
        Activation::GeluTanh => backward::<GeluTanh>(gate, up, gradient),
    }
}
