//! Kept keys and values against the whole forward pass.

use fedlora_adapter::{Adapter, LoraConfig, Target};

use super::*;
use crate::{Device, Engine};
use fedlora_model::testing::random_weights;
use fedlora_model::testing::varied;
use fedlora_model::{Architecture, LlamaConfig, SplitMix, Variation};

fn config() -> LlamaConfig {
    LlamaConfig {
        architecture: Architecture::Llama,
        vocab_size: 40,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 600,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        variation: Default::default(),
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_id: None,
    }
}

fn engine(config: LlamaConfig) -> Engine {
    Engine::from_weights(&random_weights(config, 1), "tiny", &Device::Cpu).unwrap()
}

/// An adapter whose both factors matter.
fn adapter(engine: &Engine) -> Adapter {
    let config = LoraConfig::new(4, 8.0, 0.1, Target::ALL).unwrap();
    let layout = engine.adapter_layout(&config).unwrap();
    let mut random = SplitMix::new(2, 0);
    let values = (0..layout.len())
        .map(|_| (0.2 * random.normal()) as f32)
        .collect();
    Adapter::new(config, layout, values).unwrap()
}

fn tokens(count: usize) -> Vec<u32> {
    let mut random = SplitMix::new(3, 0);
    (0..count).map(|_| random.below(40) as u32).collect()
}

fn near(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len());
    for (x, y) in got.iter().zip(expected) {
        assert!((x - y).abs() < 1e-4, "{what}: {x}, expected {y}");
    }
}

/// Feeds `tokens` in steps of the given sizes and compares the logits after each step.
fn compare(engine: &Engine, adapter: Option<&Adapter>, tokens: &[u32], steps: &[usize]) {
    let whole = engine.logits(adapter, tokens).unwrap();
    let vocab = engine.vocab_size();
    let mut decoder = engine.decoder(adapter).unwrap();
    let mut done = 0;
    for &step in steps {
        let logits = decoder.extend(&tokens[done..done + step]).unwrap();
        done += step;
        let expected = &whole[(done - 1) * vocab..done * vocab];
        near(&logits, expected, &format!("after {done} tokens"));
    }
    assert_eq!((decoder.len(), done), (tokens.len(), tokens.len()));
}

#[test]
fn each_step_gives_the_logits_of_the_whole_pass() {
    let steps: Vec<usize> = std::iter::once(7).chain([1; 9]).chain([4, 1, 1]).collect();
    for config in [
        config(),
        LlamaConfig {
            sliding_window: Some(5),
            ..config()
        },
        LlamaConfig {
            qkv_bias: true,
            tie_word_embeddings: false,
            ..config()
        },
        LlamaConfig {
            num_key_value_heads: 1,
            ..config()
        },
        // All that blocks can compute otherwise than Llama's.
        LlamaConfig {
            sliding_window: Some(5),
            variation: varied(),
            ..config()
        },
        // Two rotations, both of which turn.
        LlamaConfig {
            sliding_window: Some(5),
            variation: Variation {
                unrotated: Default::default(),
                ..varied()
            },
            ..config()
        },
    ] {
        let engine = engine(config);
        let adapter = adapter(&engine);
        compare(&engine, None, &tokens(22), &steps);
        compare(&engine, Some(&adapter), &tokens(22), &steps);
    }
}

#[test]
fn long_prompts_go_through_in_stretches() {
    for window in [None, Some(100)] {
        let engine = engine(LlamaConfig {
            sliding_window: window,
            ..config()
        });
        compare(&engine, None, &tokens(600), &[597, 1, 2]);
    }
}

#[test]
fn likelihoods_are_those_of_the_logits() {
    let engine = engine(config());
    let tokens = tokens(20);
    let vocab = engine.vocab_size();
    let logits = engine.logits(None, &tokens).unwrap();
    let mut decoder = engine.decoder(None).unwrap();
    decoder.extend(&tokens[..5]).unwrap();
    let mut got = decoder.log_likelihoods(&tokens[5..6]).unwrap();
    got.extend(decoder.log_likelihoods(&tokens[6..]).unwrap());
    assert_eq!(got.len(), 15);
    for (at, got) in got.iter().enumerate() {
        let row = &logits[(4 + at) * vocab..(5 + at) * vocab];
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let expected = f64::from(row[tokens[5 + at] as usize]) - sum.ln();
        assert!((got - expected).abs() < 1e-4, "{at}: {got}, {expected}");
    }
}

#[test]
fn a_fork_leaves_its_origin_alone() {
    let engine = engine(config());
    let tokens = tokens(12);
    let mut origin = engine.decoder(None).unwrap();
    origin.extend(&tokens[..6]).unwrap();
    let mut fork = origin.fork();
    fork.extend(&[1, 2, 3]).unwrap();
    assert_eq!((origin.len(), fork.len(), fork.room()), (6, 9, 591));
    let got = origin.extend(&tokens[6..]).unwrap();
    let whole = engine.logits(None, &tokens).unwrap();
    near(&got, &whole[11 * engine.vocab_size()..], "the origin");
}

#[test]
fn refuses_what_cannot_follow() {
    let engine = engine(LlamaConfig {
        max_position_embeddings: 8,
        ..config()
    });
    let mut decoder = engine.decoder(None).unwrap();
    assert_eq!(decoder.extend(&[]), Err(DecodeError::Empty));
    assert_eq!(decoder.log_likelihoods(&[1]), Err(DecodeError::Empty));
    let token = DecodeError::Token { got: 40, vocab: 40 };
    assert_eq!(decoder.extend(&[1, 40]), Err(token));
    decoder.extend(&[1; 6]).unwrap();
    let positions = DecodeError::Positions {
        got: 9,
        positions: 8,
    };
    assert_eq!(decoder.extend(&[1; 3]), Err(positions.clone()));
    assert_eq!(decoder.log_likelihoods(&[1; 3]), Err(positions));
    // What was refused was not put.
    assert_eq!(decoder.len(), 6);
    decoder.extend(&[1; 2]).unwrap();
    assert_eq!(decoder.room(), 0);
}

#[test]
fn refuses_an_adapter_of_another_model() {
    let other = engine(LlamaConfig {
        intermediate_size: 20,
        ..config()
    });
    let adapter = adapter(&other);
    let error = engine(config()).decoder(Some(&adapter)).unwrap_err();
    assert!(error.to_string().contains("mlp.gate_proj"), "{error}");
}
