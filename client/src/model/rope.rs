//! Rotary position embedding (Su et al., 2021), the half-split kind of Hugging Face
//! checkpoints: feature `i` turns with feature `i + head_dim / 2`.

use std::f64::consts::PI;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::config::{Llama3Scaling, LlamaConfig};

/// Radians a token that each pair of features turns by, `[head_dim / 2]`:
/// `theta^(-2 i / head_dim)` for pair `i`, stretched where the configuration says so. Rounded
/// to `f32` wherever Transformers rounds.
pub(crate) fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    let dim = config.head_dim as f32;
    let base = f64::from(config.rope_theta as f32);
    (0..config.head_dim / 2)
        .map(|pair| {
            let exponent = (2 * pair) as f32 / dim;
            let frequency = 1.0 / base.powf(f64::from(exponent)) as f32;
            match &config.rope_scaling {
                None => frequency,
                Some(scaling) => stretch(frequency, scaling),
            }
        })
        .collect()
}

/// Llama 3.1's rule: with wavelengths in tokens, short ones stay, long ones are stretched by
/// the factor, and those between are blended. PyTorch divides a number by a tensor as the
/// number times the tensor's reciprocal, hence the two roundings.
fn stretch(frequency: f32, scaling: &Llama3Scaling) -> f32 {
    let original = scaling.original_max_position_embeddings as f64;
    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
    let factor = scaling.factor as f32;
    let wavelength = frequency.recip() * (2.0 * PI) as f32;
    if wavelength > (original / low) as f32 {
        frequency / factor
    } else if wavelength < (original / high) as f32 {
        frequency
    } else {
        let ratio = wavelength.recip() * original as f32;
        let smooth = (ratio - low as f32) / (high - low) as f32;
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}

/// Cosines and sines for positions `0..length`, each `[length, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(crate) struct RopeTables<B: Backend> {
    pub(crate) cos: Tensor<B, 2>,
    pub(crate) sin: Tensor<B, 2>,
}

impl<B: Backend> RopeTables<B> {
    /// Angle of position `p` and pair `i`: `p * frequencies[i]`. Angles are rounded to `f32`,
    /// as Transformers rounds them.
    pub(crate) fn new(length: usize, frequencies: &[f32], device: &B::Device) -> Self {
        let half = frequencies.len();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..length {
            for frequency in frequencies {
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let table = |values| Tensor::from_data(TensorData::new(values, [length, half]), device);
        Self {
            cos: table(cos),
            sin: table(sin),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::super::config::tests::tiny;
    use super::*;

    /// The step between neighbouring numbers, as a share of them.
    const STEP: f64 = f32::EPSILON as f64;

    #[test]
    fn frequencies_are_transformers() {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/architectures/rope.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (name, model) in golden["models"].as_object().unwrap() {
            let rope = &model["rope"];
            let number = |key: &str| rope[key].as_f64().unwrap();
            let config = LlamaConfig {
                head_dim: model["head_dim"].as_u64().unwrap() as usize,
                rope_theta: number("rope_theta"),
                rope_scaling: (rope["rope_type"] == "llama3").then(|| Llama3Scaling {
                    factor: number("factor"),
                    low_freq_factor: number("low_freq_factor"),
                    high_freq_factor: number("high_freq_factor"),
                    original_max_position_embeddings: number("original_max_position_embeddings")
                        as usize,
                }),
                ..tiny()
            };
            let got = inverse_frequencies(&config);
            let expected: Vec<f64> = serde_json::from_value(model["inv_freq"].clone()).unwrap();
            assert_eq!(got.len(), expected.len(), "{name}");
            let mut different = 0;
            for (pair, (&got, expected)) in got.iter().zip(expected).enumerate() {
                let error = (f64::from(got) - expected).abs() / expected;
                // PyTorch's power function is within one step of the right one, not always it.
                assert!(error < 2.0 * STEP, "{name} {pair}: {got} {expected}");
                different += usize::from(f64::from(got) != expected);
            }
            assert!(different <= 2, "{name}: {different} differ");
        }
    }

    #[test]
    fn stretches_by_wavelength() {
        let config = |rope_scaling| LlamaConfig {
            head_dim: 64,
            rope_theta: 500_000.0,
            rope_scaling,
            ..tiny()
        };
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let plain = inverse_frequencies(&config(None));
        let scaled = inverse_frequencies(&config(Some(scaling)));
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[31], plain[31] / 8.0);
        let between = plain
            .iter()
            .zip(&scaled)
            .filter(|&(&plain, &scaled)| scaled < plain && scaled > plain / 8.0);
        assert!(between.count() > 1);
    }
}
