//! Rotary position embedding (Su et al., 2021), the half-split kind of Hugging Face
//! checkpoints: feature `i` turns with feature `i + head_dim / 2`.

use std::f64::consts::PI;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::config::{Llama3Scaling, LlamaConfig, RopeScaling, YarnScaling};
use super::ops::arguments::Rotation;

/// Tables hold at least this many positions.
const MIN_POSITIONS: usize = 256;

/// The rotary tables of a model: one for all blocks, or two where windowed blocks have frequencies
/// of their own.
#[derive(Debug, Clone)]
pub(crate) struct Ropes<B: Backend> {
    all: Rope<B>,
    windowed: Option<Rope<B>>,
}

/// Rotary tables, or the lines of them for some rows, by what turns by them.
#[derive(Debug, Clone)]
pub(crate) struct Rotations<F> {
    /// Of all blocks, or of those without a window.
    pub(crate) all: Rotation<F>,
    /// Of those with a window, where they have frequencies of their own.
    pub(crate) windowed: Option<Rotation<F>>,
}

impl<F> Rotations<F> {
    /// That of a block, which has a window or none.
    pub(crate) fn of(&self, windowed: bool) -> &Rotation<F> {
        let own = self.windowed.as_ref().filter(|_| windowed);
        own.unwrap_or(&self.all)
    }

    /// Each cosine and sine passed through `change`.
    pub(crate) fn map<G>(self, change: impl Fn(F) -> G) -> Rotations<G> {
        let both = |rotation: Rotation<F>| Rotation {
            cos: change(rotation.cos),
            sin: change(rotation.sin),
        };
        Rotations {
            all: both(self.all),
            windowed: self.windowed.map(both),
        }
    }
}

impl<B: Backend> Ropes<B> {
    pub(crate) fn new(config: &LlamaConfig, device: &B::Device) -> Self {
        let windowed = config.local_rope();
        Self {
            all: Rope::new(config, device),
            windowed: windowed.map(|config| Rope::new(&config, device)),
        }
    }

    /// Cosines and sines of positions from 0 to at least `length`, each
    /// `[positions, head_dim / 2]`.
    pub(crate) fn tables(&self, length: usize) -> Rotations<Tensor<B, 2>> {
        Rotations {
            all: self.all.tables(length),
            windowed: self.windowed.as_ref().map(|rope| rope.tables(length)),
        }
    }

    /// The same with the tables that there are passed through `change`.
    pub(crate) fn map<C: Backend>(
        &self,
        change: impl Fn(Tensor<B, 2>) -> Tensor<C, 2>,
        device: &C::Device,
    ) -> Ropes<C> {
        Ropes {
            all: self.all.map(&change, device),
            windowed: self.windowed.as_ref().map(|rope| rope.map(&change, device)),
        }
    }
}

/// Rotary tables of one kind of blocks: computed when they are first needed, as far as they are needed,
/// for a model may have many more positions than any sequence.
#[derive(Debug, Clone)]
struct Rope<B: Backend> {
    frequencies: Arc<[f32]>,
    /// What cosines and sines are multiplied with.
    magnitude: f32,
    most: usize,
    tables: Arc<Mutex<Option<Rotation<Tensor<B, 2>>>>>,
    device: B::Device,
}

impl<B: Backend> Rope<B> {
    fn new(config: &LlamaConfig, device: &B::Device) -> Self {
        Self {
            frequencies: inverse_frequencies(config).into(),
            magnitude: magnitude(config),
            most: config.max_position_embeddings,
            tables: Arc::default(),
            device: device.clone(),
        }
    }

    /// Cosines and sines of positions from 0 to at least `length`, each
    /// `[positions, head_dim / 2]`.
    fn tables(&self, length: usize) -> Rotation<Tensor<B, 2>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*tables
            && found.cos.dims()[0] >= length
        {
            return found.clone();
        }
        let positions = length
            .next_power_of_two()
            .max(MIN_POSITIONS)
            .min(self.most)
            .max(length);
        let half = self.frequencies.len();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..positions {
            for frequency in self.frequencies.iter() {
                // Rounded to `f32` where Transformers rounds it.
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32 * self.magnitude);
                sin.push(angle.sin() as f32 * self.magnitude);
            }
        }
        let table =
            |values| Tensor::from_data(TensorData::new(values, [positions, half]), &self.device);
        let made = Rotation {
            cos: table(cos),
            sin: table(sin),
        };
        *tables = Some(made.clone());
        made
    }

    /// The same with the tables that there are passed through `change`.
    fn map<C: Backend>(
        &self,
        change: impl Fn(Tensor<B, 2>) -> Tensor<C, 2>,
        device: &C::Device,
    ) -> Rope<C> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = tables.as_ref().map(|tables| Rotation {
            cos: change(tables.cos.clone()),
            sin: change(tables.sin.clone()),
        });
        Rope {
            frequencies: self.frequencies.clone(),
            magnitude: self.magnitude,
            most: self.most,
            tables: Arc::new(Mutex::new(tables)),
            device: device.clone(),
        }
    }
}

/// What cosines and sines are multiplied with: other than 1 in YaRN alone.
fn magnitude(config: &LlamaConfig) -> f32 {
    match &config.rope_scaling {
        Some(RopeScaling::Yarn(yarn)) => yarn.attention_factor as f32,
        _ => 1.0,
    }
}

/// Radians a token that each pair of features turns by, `[head_dim / 2]`:
/// `theta^(-2 i / head_dim)` for pair `i`, stretched where the configuration says so. Rounded
/// to `f32` wherever Transformers rounds.
pub(crate) fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    let dim = config.head_dim as f32;
    let base = f64::from(config.rope_theta as f32);
    let mut periods = (0..config.head_dim / 2).map(|pair| {
        let exponent = (2 * pair) as f32 / dim;
        base.powf(f64::from(exponent)) as f32
    });
    match &config.rope_scaling {
        // No sequence is longer than the positions from which `dynamic` begins.
        None | Some(RopeScaling::Dynamic { .. }) => periods.map(f32::recip).collect(),
        Some(RopeScaling::Linear { factor }) => {
            let slow = |period: f32| period.recip() / *factor as f32;
            periods.map(slow).collect()
        }
        Some(RopeScaling::Llama3(scaling)) => periods
            .map(|period| stretch(period.recip(), scaling))
            .collect(),
        Some(RopeScaling::Yarn(yarn)) => {
            let ramp = ramp(yarn, config);
            let blend = |pair| Some(blend(periods.next()?, yarn.factor as f32, ramp(pair)));
            (0..config.head_dim / 2).map_while(blend).collect()
        }
    }
}

/// YaRN's share of the slowed frequency in each pair's (section 3.2): 0 up to the pair that turns
/// `beta_fast` times over the original positions, 1 from the one that turns `beta_slow` times.
fn ramp(yarn: &YarnScaling, config: &LlamaConfig) -> impl Fn(usize) -> f32 + use<> {
    let dim = config.head_dim as f64;
    let turning = |turns: f64| {
        let period = yarn.original_max_position_embeddings as f64 / (turns * 2.0 * PI);
        dim * period.ln() / (2.0 * config.rope_theta.ln())
    };
    let (mut low, mut high) = (turning(yarn.beta_fast), turning(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    move |pair| ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0)
}

/// The frequency of a period, of which `share` is slowed by the factor.
fn blend(period: f32, factor: f32, share: f32) -> f32 {
    // Of what is left, as Transformers rounds it.
    let kept = 1.0 - share;
    (factor * period).recip() * (1.0 - kept) + period.recip() * kept
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::super::config::tests::tiny;
    use super::*;

    /// The scaling that a golden was made with.
    fn scaling(rope: &Value) -> Option<RopeScaling> {
        let text = json!({
            "model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 1, "num_attention_heads": 4, "rope_parameters": rope,
            "max_position_embeddings": 131_072,
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), text.to_string()).unwrap();
        LlamaConfig::load(dir.path()).unwrap().rope_scaling
    }

    #[test]
    fn frequencies_are_transformers() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/golden/architectures/rope.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (name, model) in golden["models"].as_object().unwrap() {
            let rope = &model["rope"];
            let number = |key: &str| rope[key].as_f64().unwrap();
            let config = LlamaConfig {
                head_dim: model["head_dim"].as_u64().unwrap() as usize,
                rope_theta: number("rope_theta"),
                rope_scaling: scaling(rope),
                ..tiny()
            };
            let got = inverse_frequencies(&config);
            let expected: Vec<f32> = serde_json::from_value(model["inv_freq"].clone()).unwrap();
            assert_eq!(got.len(), expected.len(), "{name}");
            let mut different = 0;
            for (pair, (&got, expected)) in got.iter().zip(expected).enumerate() {
                let error = (got - expected).abs() / expected;
                // PyTorch's power function is within one step of the right one, not always it.
                assert!(
                    error < 2.0 * f32::EPSILON,
                    "{name} {pair}: {got} {expected}"
                );
                different += usize::from(got != expected);
            }
            assert!(different <= 2, "{name}: {different} differ");
            let factor = model["attention_factor"].as_f64().unwrap();
            assert_eq!(magnitude(&config), factor as f32, "{name}");
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
        let scaled = inverse_frequencies(&config(Some(RopeScaling::Llama3(scaling))));
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[31], plain[31] / 8.0);
        let between = plain
            .iter()
            .zip(&scaled)
            .filter(|&(&plain, &scaled)| scaled < plain && scaled > plain / 8.0);
        assert!(between.count() > 1);
    }
}
