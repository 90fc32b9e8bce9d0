//! Weights in memory, their digest, and what is written.

use std::path::PathBuf;

use super::super::config::tests::{gemma3, tiny};
use super::super::config::{Activation, Llama3Scaling, Multipliers, RopeScaling, YarnScaling};
use super::*;
use crate::testing::random_weights as random;

/// Saves, opens again, and expects the same.
fn round_trip(weights: &BaseWeights) {
    let dir = tempfile::tempdir().unwrap();
    weights.save(dir.path(), FloatType::F32).unwrap();
    let read = BaseWeights::load(dir.path()).unwrap();
    assert_eq!(read.config(), weights.config());
    for index in 0..weights.config().tensors().len() {
        assert_eq!(read.read(index).unwrap(), weights.read(index).unwrap());
    }
    assert_eq!(read.digest().unwrap(), weights.digest().unwrap());
}

#[test]
fn every_kind_round_trips() {
    let biased = LlamaConfig {
        qkv_bias: true,
        ..tiny()
    };
    let mistral = LlamaConfig {
        architecture: Architecture::Mistral,
        sliding_window: Some(4),
        tie_word_embeddings: false,
        ..tiny()
    };
    let qwen2 = LlamaConfig {
        architecture: Architecture::Qwen2,
        ..biased.clone()
    };
    let normed = LlamaConfig {
        architecture: Architecture::Qwen3,
        variation: Variation {
            qk_norm: true,
            ..Variation::default()
        },
        ..tiny()
    };
    for config in [tiny(), biased, mistral, qwen2, normed] {
        round_trip(&random(config, 1));
    }
}

/// A checkpoint of Gemma holds one less than its norms multiply with.
#[test]
fn norms_of_gemma_are_stored_less_one() {
    let weights = random(gemma3(), 1);
    let dir = tempfile::tempdir().unwrap();
    weights.save(dir.path(), FloatType::F32).unwrap();
    let stored = tensors::read(&dir.path().join(SINGLE_FILE), 1 << 20).unwrap();
    let config = weights.config();
    for (index, (name, shape)) in config.tensors().into_iter().enumerate() {
        let less = if shape.len() == 1 { 1.0 } else { 0.0 };
        let values = weights.read(index).unwrap().values;
        for (stored, value) in stored[&name].values.iter().zip(values) {
            assert_eq!(*stored, value - less, "{name}");
        }
    }
    // What was read from a file is written back without a loss.
    round_trip(&BaseWeights::load(dir.path()).unwrap());
}

#[test]
fn counts_parameters() {
    // Embedding, two blocks of norms, q k v o and the feed-forward part, and the last norm.
    let block = 2 * 16 + 16 * (24 + 12 + 12 + 24) + 3 * 16 * 24;
    let weights = random(tiny(), 1);
    assert_eq!(weights.parameters(), 40 * 16 + 2 * block + 16);
}

#[test]
fn the_digest_of_a_plain_llama_stays() {
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
    let digest = BaseWeights::load(&base).unwrap().digest().unwrap();
    assert_eq!(
        digest.to_string(),
        "424d6b44b9def77e8aede3ca1c82cc53e25537afa0e573822f82139c2e56160e"
    );
}

#[test]
fn the_digest_covers_what_the_model_computes() {
    let plain = tiny();
    let scaling = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 16,
    };
    let stretched = |scaling| LlamaConfig {
        rope_scaling: Some(scaling),
        ..tiny()
    };
    let scaled = |scaling| stretched(RopeScaling::Llama3(scaling));
    let yarn = YarnScaling {
        factor: 8.0,
        attention_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_position_embeddings: 16,
        truncate: true,
    };
    let varied = |variation| LlamaConfig {
        architecture: Architecture::SmolLm3,
        sliding_window: Some(4),
        variation,
        ..tiny()
    };
    let multiplied = |multipliers| {
        varied(Variation {
            multipliers,
            ..Variation::default()
        })
    };
    let plain_factors = Multipliers::default();
    let yarned = |yarn| stretched(RopeScaling::Yarn(yarn));
    let window = |sliding_window| LlamaConfig {
        architecture: Architecture::Mistral,
        sliding_window,
        ..tiny()
    };
    let biased = |architecture| LlamaConfig {
        architecture,
        qkv_bias: true,
        ..tiny()
    };
    let configs = [
        LlamaConfig {
            rope_theta: 10_000.0,
            ..tiny()
        },
        LlamaConfig {
            rms_norm_eps: 1e-6,
            ..tiny()
        },
        window(None),
        window(Some(4)),
        window(Some(5)),
        biased(Architecture::Llama),
        biased(Architecture::Qwen2),
        scaled(scaling),
        scaled(Llama3Scaling {
            factor: 4.0,
            ..scaling
        }),
        scaled(Llama3Scaling {
            low_freq_factor: 2.0,
            ..scaling
        }),
        scaled(Llama3Scaling {
            high_freq_factor: 3.0,
            ..scaling
        }),
        scaled(Llama3Scaling {
            original_max_position_embeddings: 24,
            ..scaling
        }),
        stretched(RopeScaling::Linear { factor: 8.0 }),
        stretched(RopeScaling::Linear { factor: 4.0 }),
        stretched(RopeScaling::Dynamic { factor: 8.0 }),
        yarned(yarn),
        yarned(YarnScaling {
            attention_factor: 1.5,
            ..yarn
        }),
        yarned(YarnScaling {
            beta_fast: 16.0,
            ..yarn
        }),
        yarned(YarnScaling {
            beta_slow: 2.0,
            ..yarn
        }),
        yarned(YarnScaling {
            truncate: false,
            ..yarn
        }),
        varied(Variation::default()),
        varied(Variation {
            qk_norm: true,
            ..Variation::default()
        }),
        varied(Variation {
            unrotated: [1].into(),
            ..Variation::default()
        }),
        varied(Variation {
            unwindowed: [1].into(),
            ..Variation::default()
        }),
        varied(Variation {
            local_theta: Some(10_000.0),
            ..Variation::default()
        }),
        varied(Variation {
            local_theta: Some(20_000.0),
            ..Variation::default()
        }),
        varied(Variation {
            output_norms: true,
            ..Variation::default()
        }),
        varied(Variation {
            activation: Activation::GeluTanh,
            ..Variation::default()
        }),
        multiplied(Multipliers {
            embedding: 2.0,
            ..plain_factors
        }),
        multiplied(Multipliers {
            attention: Some(2.0),
            ..plain_factors
        }),
        multiplied(Multipliers {
            residual: 2.0,
            ..plain_factors
        }),
        multiplied(Multipliers {
            logits_scaling: 2.0,
            ..plain_factors
        }),
    ];
    let mut digests = vec![random(plain.clone(), 1).digest().unwrap()];
    digests.push(random(plain, 2).digest().unwrap());
    for config in configs {
        let digest = random(config.clone(), 1).digest().unwrap();
        assert!(!digests.contains(&digest), "{config:?}");
        digests.push(digest);
    }
}

#[test]
fn the_digest_does_not_depend_on_the_type_in_the_file() {
    let rounded = |weights: &BaseWeights, float| {
        let dir = tempfile::tempdir().unwrap();
        weights.save(dir.path(), float).unwrap();
        let read = BaseWeights::load(dir.path()).unwrap();
        // The values as they are now, in memory.
        let values = (0..read.config().tensors().len())
            .map(|index| read.read(index).unwrap().values)
            .collect();
        (read, dir, BaseWeights::new(tiny(), values))
    };
    let (bf16, _dir, values) = rounded(&random(tiny(), 1), FloatType::Bf16);
    let (f32, _other, _) = rounded(&values, FloatType::F32);
    let digest = values.digest().unwrap();
    assert_eq!(bf16.digest().unwrap(), digest);
    assert_eq!(f32.digest().unwrap(), digest);
}
