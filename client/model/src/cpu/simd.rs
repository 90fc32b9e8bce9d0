//! Elementwise work in the widest vectors that the processor has, and sums in a fixed order.
//!
//! A function marked `with_simd` is compiled for AVX-512, for AVX2 and for any processor, and
//! the one that fits is chosen when it is called. What it calls must be inlined into it.

use pulp::{Arch, Simd, with_simd};

/// Lanes of a sum: enough for two AVX-512 registers.
const LANES: usize = 32;

/// `total += part`, element by element.
#[with_simd(add = Arch::new())]
#[inline(always)]
pub(crate) fn add_with_simd<'a, S: Simd>(_simd: S, total: &'a mut [f32], part: &'a [f32]) {
    for (total, part) in total.iter_mut().zip(part) {
        *total += part;
    }
}

/// The sum of the products.
#[with_simd(dot_product = Arch::new())]
#[inline(always)]
pub(crate) fn dot_product_with_simd<'a, S: Simd>(
    _simd: S,
    left: &'a [f32],
    right: &'a [f32],
) -> f32 {
    sum_by(left.len().min(right.len()), |i| left[i] * right[i])
}

/// `e^x` for `x <= 88`, to about 2e-7 relative: `2^n e^r` with `n` the nearest integer to
/// `x / ln 2` and a Taylor polynomial for `e^r`. Without branches, so that loops vectorize.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer, which is then in the low mantissa bits.
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

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// A sum in lanes: vectorizes, and always in the same order.
#[inline(always)]
pub(crate) fn sum_by(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = count / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    let mut sum = lanes[0];
    for index in whole..count {
        sum += term(index);
    }
    sum
}

/// The largest of `values`, or negative infinity where there are none.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            // Not f32::max: it also orders NaN, which costs one more comparison.
            *lane = if value > *lane { value } else { *lane };
        }
    }
    let rest = chunks.remainder().iter().copied();
    lanes
        .into_iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_and_saturates() {
        for step in -8_700..8_800 {
            let x = step as f32 * 0.01;
            let expected = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!(((got - expected) / expected).abs() < 5e-7, "{x}: {got}");
        }
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn sums_and_maxima_of_any_length() {
        for count in 0..100_usize {
            let values: Vec<f32> = (0..count).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            let sum: f32 = values.iter().sum();
            assert_eq!(sum_by(count, |i| values[i]), sum);
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&values), most);
        }
    }
}
