//! Llama 3.1's stretching of the rotary frequencies, which GGUF files hold as the factors by
//! which each frequency is divided and not as the numbers that they were computed from.
//!
//! The numbers are found again, so that the model computes exactly what it computes from a
//! Hugging Face folder, and every factor is checked against them.

use std::f64::consts::TAU;

use super::super::config::Llama3Scaling;
use super::container::Container;
use super::error::GgufError;
use super::names::ROPE_FACTORS;
use super::values::{RowOrder, read_values};

/// Converters compute the factors in `f32`, from frequencies in `f32`.
const TOLERANCE: f64 = 1e-4;

/// The scaling that the file's factors come from; `None` where it has none, or all are 1.
pub(super) fn scaling(
    container: &Container,
    head_dim: usize,
    theta: f64,
) -> Result<Option<Llama3Scaling>, GgufError> {
    let Some(info) = container.tensors().get(ROPE_FACTORS) else {
        return Ok(None);
    };
    let expected = vec![head_dim / 2];
    if info.shape != expected {
        return Err(GgufError::Shape {
            path: container.path().to_owned(),
            name: ROPE_FACTORS.to_owned(),
            got: info.shape.clone(),
            expected,
        });
    }
    let factors = read_values(container, ROPE_FACTORS, info, RowOrder::Plain)?;
    find(&factors, head_dim, theta).map_err(|why| GgufError::RopeFactors {
        path: container.path().to_owned(),
        why,
    })
}

/// Finds the scaling of which these are the factors.
fn find(factors: &[f32], head_dim: usize, theta: f64) -> Result<Option<Llama3Scaling>, String> {
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(None);
    }
    // Frequencies fall with the pair, so the last is the first to be slowed in full.
    let factor = f64::from(factors[factors.len() - 1]);
    if factor <= 1.0 {
        return Err(format!("its last factor is {factor}: Llama 3's is above 1"));
    }
    // Only the ratios of the other three numbers count. All released models take 1 and 4, and
    // positions of the first training that are a power of two, most often 8192: that comes
    // first, for where no frequency tells them apart they are the same to the model.
    let others = (9..=20).flat_map(|exponent| [2.0, 4.0, 8.0].map(|high| (1 << exponent, high)));
    std::iter::once((8192, 4.0))
        .chain(others)
        .map(|(positions, high)| Llama3Scaling {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: high,
            original_max_position_embeddings: positions,
        })
        .find(|scaling| fits(scaling, factors, head_dim, theta))
        .map(Some)
        .ok_or_else(|| "no Llama 3 scaling has these factors".to_owned())
}

fn fits(scaling: &Llama3Scaling, factors: &[f32], head_dim: usize, theta: f64) -> bool {
    factors.iter().enumerate().all(|(pair, &factor)| {
        let expected = expected(scaling, pair, head_dim, theta);
        (f64::from(factor) - expected).abs() <= TOLERANCE * expected
    })
}

/// By what the frequency of `pair` is divided: 1 for short waves, `factor` for long ones, and
/// for those between a blend that is linear in the frequency (Llama 3.1's reference code).
fn expected(scaling: &Llama3Scaling, pair: usize, head_dim: usize, theta: f64) -> f64 {
    let wavelength = TAU * theta.powf(2.0 * pair as f64 / head_dim as f64);
    let turns = scaling.original_max_position_embeddings as f64 / wavelength;
    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
    1.0 / ((1.0 - kept) / scaling.factor + kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(scaling: &Llama3Scaling, head_dim: usize, theta: f64) -> Vec<f32> {
        let pairs = 0..head_dim / 2;
        pairs
            .map(|pair| expected(scaling, pair, head_dim, theta) as f32)
            .collect()
    }

    #[test]
    fn finds_the_numbers_of_released_models_again() {
        for (factor, head_dim) in [(8.0, 128), (32.0, 64), (32.0, 128)] {
            let scaling = Llama3Scaling {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            };
            let found = find(&factors(&scaling, head_dim, 500_000.0), head_dim, 500_000.0);
            assert_eq!(found, Ok(Some(scaling)));
        }
    }

    #[test]
    fn all_ones_are_no_scaling_and_anything_else_is_refused() {
        assert_eq!(find(&[1.0; 32], 64, 500_000.0), Ok(None));
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let mut changed = factors(&scaling, 64, 500_000.0);
        changed[3] = 1.01;
        assert!(find(&changed, 64, 500_000.0).is_err());
        // Long waves faster than short ones, and plain linear scaling.
        assert!(find(&[1.0, 0.5], 4, 500_000.0).is_err());
        assert!(find(&[4.0; 32], 64, 500_000.0).is_err());
        assert!(find(&[1.0, f32::INFINITY], 4, 500_000.0).is_err());
    }
}
