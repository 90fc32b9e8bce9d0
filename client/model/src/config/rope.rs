//! How rotary frequencies are stretched, so that a model takes sequences longer than those of
//! its first training.

use serde_json::{Value, json};

/// `rope_scaling` of `config.json`, by its `rope_type`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// All frequencies are divided by the factor (`linear`).
    Linear {
        /// By how much all frequencies are slowed.
        factor: f64,
    },
    /// The base grows with sequences longer than the model's positions (`dynamic`). No sequence
    /// is longer than them here, so that the frequencies stay as they are.
    Dynamic {
        /// By how much the base would grow.
        factor: f64,
    },
    /// YaRN (`yarn`).
    Yarn(YarnScaling),
    /// Llama 3.1's (`llama3`).
    Llama3(Llama3Scaling),
}

/// YaRN (Peng et al., 2023): low frequencies are slowed, high ones are left alone, those between
/// are blended by their place, and cosines and sines are multiplied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct YarnScaling {
    /// By how much low frequencies are slowed.
    pub factor: f64,
    /// What cosines and sines are multiplied with.
    pub attention_factor: f64,
    /// Frequencies that turn more often than this over the original positions are left alone.
    pub beta_fast: f64,
    /// Frequencies that turn less often than this over the original positions are slowed in full.
    pub beta_slow: f64,
    /// The positions that the model was first trained with.
    pub original_max_position_embeddings: usize,
    /// Whether the blend begins and ends at whole pairs of features.
    pub truncate: bool,
}

/// Llama 3.1's stretching of the rotary frequencies (`rope_scaling` of type `llama3`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Scaling {
    /// By how much low frequencies are slowed.
    pub factor: f64,
    /// Wavelengths above `original / low_freq_factor` are low frequencies.
    pub low_freq_factor: f64,
    /// Wavelengths below `original / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// The positions that the model was first trained with.
    pub original_max_position_embeddings: usize,
}

impl RopeScaling {
    /// The object as Transformers writes it.
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            Self::Dynamic { factor } => json!({"rope_type": "dynamic", "factor": factor}),
            Self::Yarn(yarn) => json!({
                "rope_type": "yarn",
                "factor": yarn.factor,
                "attention_factor": yarn.attention_factor,
                "beta_fast": yarn.beta_fast,
                "beta_slow": yarn.beta_slow,
                "original_max_position_embeddings": yarn.original_max_position_embeddings,
                "truncate": yarn.truncate,
            }),
            Self::Llama3(scaling) => json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            }),
        }
    }

    /// What tells it apart from every other: a number for its kind, and its own numbers.
    pub(crate) fn numbers(&self) -> (u64, Vec<u64>) {
        match self {
            Self::Llama3(scaling) => (
                1,
                vec![
                    scaling.factor.to_bits(),
                    scaling.low_freq_factor.to_bits(),
                    scaling.high_freq_factor.to_bits(),
                    scaling.original_max_position_embeddings as u64,
                ],
            ),
            Self::Linear { factor } => (2, vec![factor.to_bits()]),
            Self::Dynamic { factor } => (3, vec![factor.to_bits()]),
            Self::Yarn(yarn) => (
                4,
                vec![
                    yarn.factor.to_bits(),
                    yarn.attention_factor.to_bits(),
                    yarn.beta_fast.to_bits(),
                    yarn.beta_slow.to_bits(),
                    yarn.original_max_position_embeddings as u64,
                    u64::from(yarn.truncate),
                ],
            ),
        }
    }
}
