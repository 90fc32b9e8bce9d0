//! The engine on a tiny random model.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_adapter::{Adapter, Factors, LoraConfig, Target};

use super::*;
use fedlora_model::Example;
use fedlora_model::testing::random_weights;
use fedlora_model::{Architecture, BaseWeights, LlamaConfig, SplitMix};

pub(crate) fn weights() -> BaseWeights {
    let config = LlamaConfig {
        architecture: Architecture::Llama,
        vocab_size: 40,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 32,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        variation: Default::default(),
        tie_word_embeddings: true,
        bos_token_id: None,
        eos_token_id: None,
    };
    random_weights(config, 1)
}

pub(crate) fn engine() -> Engine {
    Engine::from_weights(&weights(), "tiny", &Device::Cpu).unwrap()
}

fn config(dropout: f64) -> LoraConfig {
    LoraConfig::new(4, 8.0, dropout, Target::ALL).unwrap()
}

pub(crate) fn examples() -> Vec<Example> {
    let mut random = SplitMix::new(5, 0);
    (0..12)
        .map(|i| {
            let start = random.below(40);
            let tokens: Vec<u32> = (0..8 + i % 4)
                .map(|j| ((start + 3 * j) % 40) as u32)
                .collect();
            let counts = (0..tokens.len()).map(|at| at >= 3).collect();
            Example::new(tokens, counts)
        })
        .collect()
}

fn count(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).unwrap()
}

fn options() -> TrainOptions {
    TrainOptions {
        batches: Batches::Continuous {
            batch_size: count(4),
            shuffle: true,
            steps: count(12),
        },
        learning_rate: LearningRate::new(0.02).unwrap(),
        seed: 3,
        ..TrainOptions::default()
    }
}

fn train(
    adapter: &Adapter,
    factors: Factors,
    options: &TrainOptions,
) -> Result<Trained, TrainError> {
    engine().train(adapter, factors, &examples(), options, &mut |_| {
        ControlFlow::Continue(())
    })
}

#[test]
fn training_lowers_the_held_out_loss_and_a_fresh_adapter_changes_nothing() {
    let engine = engine();
    let fresh = engine.init_adapter(&config(0.05), 1).unwrap();
    let base = engine.evaluate(None, &examples()).unwrap();
    let same = engine.evaluate(Some(&fresh), &examples()).unwrap();
    assert!((base.loss - same.loss).abs() < 1e-6);
    assert!((base.perplexity - base.loss.exp()).abs() < 1e-9);
    let target_tokens: usize = examples().iter().map(Example::target_tokens).sum();
    assert_eq!(base.tokens, target_tokens);
    let trained = train(&fresh, Factors::Both, &options()).unwrap();
    assert_eq!(
        (trained.report.steps, trained.report.losses.len()),
        (12, 12)
    );
    let after = engine
        .evaluate(Some(&trained.adapter), &examples())
        .unwrap();
    assert!(
        after.loss < base.loss - 0.2,
        "{} -> {}",
        base.loss,
        after.loss
    );
}

#[test]
fn only_the_selected_factors_move() {
    let fresh = engine().init_adapter(&config(0.0), 1).unwrap();
    let halves = |adapter: &Adapter| {
        [Factors::A, Factors::B].map(|factors| {
            let part = adapter.layout().subset(factors).unwrap();
            adapter.select(&part).unwrap()
        })
    };
    let [a, b] = halves(&fresh);
    let after_b = train(&fresh, Factors::B, &options()).unwrap().adapter;
    let [a1, b1] = halves(&after_b);
    assert!(a1 == a && b1 != b);
    let [a2, b2] = halves(&train(&after_b, Factors::A, &options()).unwrap().adapter);
    assert!(a2 != a1 && b2 == b1);
}

#[test]
fn one_seed_gives_one_adapter_also_from_several_threads() {
    let engine = engine();
    let fresh = engine.init_adapter(&config(0.1), 1).unwrap();
    assert_eq!(fresh, engine.init_adapter(&config(0.1), 1).unwrap());
    assert_ne!(fresh, engine.init_adapter(&config(0.1), 2).unwrap());
    let run = |seed| {
        let options = TrainOptions { seed, ..options() };
        let trained =
            engine
                .clone()
                .train(&fresh, Factors::Both, &examples(), &options, &mut |_| {
                    ControlFlow::Continue(())
                });
        trained.unwrap().adapter.digest()
    };
    let digests: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| run(3))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_ne!(run(4), digests[0]);
}

#[test]
fn progress_tells_the_schedule_and_can_stop() {
    let fresh = engine().init_adapter(&config(0.0), 1).unwrap();
    let options = TrainOptions {
        span: Some(Span {
            first: 10,
            total: count(20),
        }),
        warmup: Warmup::Steps(2),
        ..options()
    };
    let mut rates = Vec::new();
    let trained = engine()
        .train(&fresh, Factors::B, &examples(), &options, &mut |progress| {
            rates.push(progress.learning_rate);
            if progress.step == 4 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert!(trained.report.stopped);
    assert_eq!(trained.report.steps, 4);
    // Half way through the decay, not at its start.
    assert!(rates[0] < 0.6 * options.learning_rate.get() && rates.is_sorted_by(|a, b| a > b));
}

#[test]
fn refuses_what_cannot_be_trained() {
    let fresh = engine().init_adapter(&config(0.0), 1).unwrap();
    let refuse = |options: TrainOptions| train(&fresh, Factors::B, &options).unwrap_err();
    // Three tokens of prompt: a cut at three leaves no target token.
    let cut = TrainOptions {
        max_tokens: MaxTokens::new(3).unwrap(),
        ..options()
    };
    assert!(matches!(refuse(cut), TrainError::NoTokens { .. }));
    let wild = TrainOptions {
        learning_rate: LearningRate::new(1e30).unwrap(),
        clip_norm: None,
        ..options()
    };
    assert!(matches!(refuse(wild), TrainError::Diverged { .. }));

    let strange = [Example::new(vec![1, 40], vec![false, true])];
    let error = engine().evaluate(None, &strange).unwrap_err();
    assert_eq!(error, TrainError::Token { got: 40, vocab: 40 });
    assert!(matches!(
        engine().evaluate(None, &[]),
        Err(TrainError::NoTokens { .. })
    ));
}

#[test]
fn refuses_an_adapter_of_another_model() {
    let config = config(0.0);
    let make = |layers, width| {
        let layout = Adapter::layout_for(&config, layers, |_, _| (width, width)).unwrap();
        let values = vec![0.0; layout.len()];
        Adapter::new(config.clone(), layout, values).unwrap()
    };
    let error = engine()
        .evaluate(Some(&make(2, 8)), &examples())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("layers.0.self_attn.q_proj.lora_A"),
        "{error}"
    );
    let deeper = Adapter::layout_for(&config, 3, |_, target| {
        weights().config().projection(target)
    });
    let layout = deeper.unwrap();
    let values = vec![0.0; layout.len()];
    let deeper = Adapter::new(config.clone(), layout, values).unwrap();
    let error = engine()
        .evaluate(Some(&deeper), &examples())
        .unwrap_err()
        .to_string();
    assert!(error.contains("3 blocks"), "{error}");
}

#[cfg(not(feature = "cuda"))]
#[test]
fn says_that_cuda_is_not_built_in() {
    let error = Engine::from_weights(&weights(), "tiny", &Device::Cuda(0)).unwrap_err();
    assert_eq!(error.remedy(), Some(Remedy::BuildWithCuda), "{error}");
}
