//! The CPU's handwritten passes against autodiff over single operations in double precision, on
//! fresh random numbers, and the passes block by block against those of the whole model.

use fedlora_adapter::{Adapter, Factors, LoraConfig, Target};

use super::*;
use crate::Example;
use crate::testing::fresh_seed;
use crate::testing::random_weights;
use crate::{
    Activation, Llama3Scaling, LlamaConfig, RopeScaling, SplitMix, Variation, WeightKind,
    YarnScaling,
};

pub(super) fn config(window: Option<usize>, qkv_bias: bool) -> LlamaConfig {
    LlamaConfig {
        architecture: crate::Architecture::Llama,
        vocab_size: 40,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        max_position_embeddings: 200,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: Some(RopeScaling::Llama3(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        })),
        sliding_window: window,
        qkv_bias,
        variation: Default::default(),
        tie_word_embeddings: window.is_some(),
        bos_token_id: None,
        eos_token_id: None,
    }
}

/// All that blocks can compute otherwise than Llama's, with a group that no two threads share.
fn varied() -> LlamaConfig {
    LlamaConfig {
        num_attention_heads: 3,
        num_key_value_heads: 1,
        rope_scaling: Some(RopeScaling::Yarn(YarnScaling {
            factor: 4.0,
            attention_factor: 1.3,
            beta_fast: 8.0,
            beta_slow: 1.0,
            original_max_position_embeddings: 50,
            truncate: true,
        })),
        variation: crate::testing::varied(),
        ..config(Some(7), false)
    }
}

/// The same without what other architectures have: Granite's and SmolLM3's blocks have neither norms
/// of what is added nor a rotation of their own, and a SwiGLU.
fn varied_as_before() -> LlamaConfig {
    let config = varied();
    LlamaConfig {
        variation: Variation {
            local_theta: None,
            output_norms: false,
            activation: Activation::Silu,
            ..config.variation
        },
        ..config
    }
}

/// Gemma 3's: two rotations and two kinds of blocks, all of which rotate.
fn gemma3() -> LlamaConfig {
    let config = varied();
    LlamaConfig {
        variation: Variation {
            unrotated: Default::default(),
            unwindowed: [1].into(),
            ..config.variation
        },
        ..config
    }
}

fn model(config: LlamaConfig, kind: WeightKind) -> Llama<Flex> {
    let weights = random_weights(config, 7);
    Llama::with_kind(&weights, kind, &Default::default()).unwrap()
}

fn lora(model: &Llama<Flex>, targets: &[Target]) -> Lora<Flex> {
    lora_of(model, targets, 8)
}

fn lora_of(model: &Llama<Flex>, targets: &[Target], seed: u64) -> Lora<Flex> {
    let adapter = lora_adapter(model.config(), targets, seed);
    Lora::from_adapter(&adapter, model.config(), &Default::default()).unwrap()
}

pub(super) fn lora_adapter(config: &LlamaConfig, targets: &[Target], seed: u64) -> Adapter {
    let lora = LoraConfig::new(3, 6.0, 0.0, targets.iter().copied()).unwrap();
    let layers = config.num_hidden_layers;
    let layout = Adapter::layout_for(&lora, layers, |_, target| config.projection(target)).unwrap();
    let mut random = SplitMix::new(seed, 0);
    let values = (0..layout.len())
        .map(|_| (0.3 * random.normal()) as f32)
        .collect();
    Adapter::new(lora, layout, values).unwrap()
}

fn batch(lengths: &[usize]) -> Batch {
    Batch::new(&examples(lengths), 200)
}

fn examples(lengths: &[usize]) -> Vec<Example> {
    examples_of(lengths, 9)
}

pub(super) fn examples_of(lengths: &[usize], seed: u64) -> Vec<Example> {
    let mut random = SplitMix::new(seed, 0);
    lengths
        .iter()
        .map(|&length| {
            let tokens: Vec<u32> = (0..length).map(|_| random.below(40) as u32).collect();
            let counts = (0..length).map(|at| at % 3 != 1).collect();
            Example::new(tokens, counts)
        })
        .collect()
}

fn values<const D: usize>(x: &Tensor<Flex, D>) -> Vec<f32> {
    x.clone().into_data().to_vec().unwrap()
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= 5e-5 * size,
            "{what}, element {index}: {got} instead of {expected}"
        );
    }
}

/// The largest difference in any factor, as a share of that factor's largest element.
fn worst_error(got: &Gradients<Flex>, expected: &Gradients<Flex>) -> f32 {
    let of_one = |(got, expected): (&Tensor<Flex, 2>, &Tensor<Flex, 2>)| {
        let (got, expected) = (values(got), values(expected));
        let size = expected.iter().fold(1e-3_f32, |most, x| most.max(x.abs()));
        let differences = got.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max) / size
    };
    let factors = got.factors.iter().zip(&expected.factors);
    factors.map(of_one).fold(0.0, f32::max)
}

fn same(got: &Gradients<Flex>, expected: &Gradients<Flex>, what: &str) {
    assert_close(&values(&got.loss), &values(&expected.loss), what);
    assert_eq!(got.factors.len(), expected.factors.len(), "{what}");
    for (at, (got, expected)) in got.factors.iter().zip(&expected.factors).enumerate() {
        let place = format!("{what}, factor {at}");
        assert_eq!(got.dims(), expected.dims(), "{place}");
        assert_close(&values(got), &values(expected), &place);
    }
}

#[test]
fn gradients_are_those_of_the_plain_composition_in_double_precision() {
    let all = Target::ALL;
    let some = [Target::K, Target::O, Target::Up];
    for (config, targets, lengths) in [
        (config(None, false), &all[..], vec![9, 90, 3]),
        (config(Some(5), true), &all[..], vec![40, 12]),
        (config(None, true), &some[..], vec![150]),
        (varied(), &all[..], vec![70, 11]),
        (varied_as_before(), &all[..], vec![70, 11]),
        (gemma3(), &all[..], vec![50, 31]),
    ] {
        let seed = fresh_seed();
        let weights = random_weights(config, seed);
        let device = Default::default();
        for kind in [WeightKind::F32, WeightKind::Int4] {
            let model = Llama::<Flex>::with_kind(&weights, kind, &device).unwrap();
            let double = Llama::<Flex>::in_f64(&weights, kind, &device).unwrap();
            let lora = lora_of(&model, targets, seed ^ 1);
            let batch = Batch::new(&examples_of(&lengths, seed ^ 2), 200);
            for dropout in [0.0, 0.2] {
                let dropout = || Dropout::new(dropout, SplitMix::new(seed, 3));
                for factors in [Factors::Both, Factors::A, Factors::B] {
                    let run = |checkpointing| {
                        let dropout = &mut dropout();
                        Flex::loss_and_gradients(
                            &model,
                            &lora,
                            factors,
                            dropout,
                            &batch,
                            checkpointing,
                        )
                    };
                    let generic = |model, checkpointing| {
                        let dropout = &mut dropout();
                        generic::loss_and_gradients(
                            model,
                            &lora,
                            factors,
                            dropout,
                            &batch,
                            checkpointing,
                        )
                    };
                    let mut expected = generic(&double, ActivationCheckpointing::Off);
                    expected.loss = expected.loss.cast(burn::tensor::FloatDType::F32);
                    let autodiff = generic(&model, ActivationCheckpointing::Off);
                    // Some random models amplify rounding: single operations in `f32` tell how
                    // much. The handwritten passes round in another order, not more.
                    let rounding = worst_error(&autodiff, &expected);
                    assert!(rounding <= 1e-2, "autodiff errs by {rounding}, seed {seed}");
                    // A norm of a small sum amplifies what it was rounded by, and there are more.
                    let norms = model.config().variation.output_norms;
                    let bound = (4.0 * rounding).max(if norms { 3e-4 } else { 5e-5 });
                    for (found, what) in [
                        (run(ActivationCheckpointing::Off), "normal"),
                        (run(ActivationCheckpointing::PerBlock), "low"),
                        (
                            generic(&model, ActivationCheckpointing::PerBlock),
                            "by block",
                        ),
                    ] {
                        assert_close(&values(&found.loss), &values(&expected.loss), what);
                        assert_eq!(found.factors.len(), expected.factors.len(), "{what}");
                        let error = worst_error(&found, &expected);
                        assert!(
                            error <= bound,
                            "{kind} {what}: {error} where single operations err by {rounding}, \
                             seed {seed}"
                        );
                    }
                }
            }
        }
    }
}

/// Packing leaks nothing: several examples in a batch are what each is alone.
#[test]
fn a_batch_is_the_sum_of_its_examples() {
    for window in [None, Some(5)] {
        let model = model(config(window, true), WeightKind::F32);
        let lora = lora(&model, &Target::ALL);
        let lengths = [40, 2, 17];
        let run = |batch: &Batch, handwritten: bool| {
            let factors = Factors::Both;
            if handwritten {
                Flex::loss_and_gradients(
                    &model,
                    &lora,
                    factors,
                    &mut None,
                    batch,
                    ActivationCheckpointing::Off,
                )
            } else {
                generic::loss_and_gradients(
                    &model,
                    &lora,
                    factors,
                    &mut None,
                    batch,
                    ActivationCheckpointing::PerBlock,
                )
            }
        };
        let examples = examples(&lengths);
        for handwritten in [true, false] {
            let packed = run(&Batch::new(&examples, 200), handwritten);
            let alone: Vec<_> = examples
                .iter()
                .map(|example| run(&Batch::new([example], 200), handwritten))
                .collect();
            let sum = |of: &dyn Fn(&Gradients<Flex>) -> Vec<f32>| {
                let mut parts = alone.iter().map(of);
                let first = parts.next().unwrap();
                parts.fold(first, |sum, part| {
                    sum.iter().zip(part).map(|(a, b)| a + b).collect()
                })
            };
            assert_close(
                &values(&packed.loss),
                &sum(&|found| values(&found.loss)),
                "loss",
            );
            for at in 0..packed.factors.len() {
                let expected = sum(&|found| values(&found.factors[at]));
                assert_close(&values(&packed.factors[at]), &expected, "factor");
            }
        }
    }
}

/// What is added to a sequence is seen by nothing that counts, in both passes.
#[test]
fn lengthened_sequences_change_nothing() {
    let model = model(config(Some(5), true), WeightKind::F32);
    let lora = lora(&model, &Target::ALL);
    let batch = batch(&[40, 2, 17]);
    let longer = batch.aligned(8, 200);
    assert_eq!(longer.positions(), 40 + 8 + 16);
    let run = |batch: &Batch, checkpointing| {
        generic::loss_and_gradients(
            &model,
            &lora,
            Factors::Both,
            &mut None,
            batch,
            checkpointing,
        )
    };
    for way in [
        ActivationCheckpointing::Off,
        ActivationCheckpointing::PerBlock,
    ] {
        same(&run(&longer, way), &run(&batch, way), "lengthened");
    }
    let (found, expected) = [&*longer, &batch]
        .map(|batch| generic::score(&model, Some(&lora), batch))
        .into();
    assert!((found.loss - expected.loss).abs() < 1e-4 * expected.loss);
    assert_eq!(found.correct, expected.correct);
}

#[test]
fn dropout_is_the_same_in_every_pass() {
    let model = model(config(None, false), WeightKind::F32);
    let lora = lora(&model, &Target::ALL);
    let batch = batch(&[20, 7]);
    let dropout = || Dropout::new(0.3, SplitMix::new(1, 1));
    let run = |checkpointing| {
        let mut dropout = dropout();
        Flex::loss_and_gradients(
            &model,
            &lora,
            Factors::Both,
            &mut dropout,
            &batch,
            checkpointing,
        )
    };
    let normal = run(ActivationCheckpointing::Off);
    same(&run(ActivationCheckpointing::PerBlock), &normal, "low");
    for checkpointing in [
        ActivationCheckpointing::Off,
        ActivationCheckpointing::PerBlock,
    ] {
        let mut dropout = dropout();
        let factors = Factors::Both;
        let found = generic::loss_and_gradients(
            &model,
            &lora,
            factors,
            &mut dropout,
            &batch,
            checkpointing,
        );
        same(&found, &normal, "generic");
    }
    let without = Flex::loss_and_gradients(
        &model,
        &lora,
        Factors::Both,
        &mut None,
        &batch,
        ActivationCheckpointing::Off,
    );
    assert_ne!(values(&without.loss), values(&normal.loss));
}

#[test]
fn scores_and_hidden_states_are_those_of_single_operations() {
    for kind in [WeightKind::F32, WeightKind::Int8, WeightKind::Bf16] {
        let model = model(config(Some(5), true), kind);
        let lora = lora(&model, &Target::ALL);
        for lora in [None, Some(&lora)] {
            let batch = batch(&[30, 1, 12]);
            let expected = model.hidden(&batch, lora, &mut None);
            let found = Flex::hidden(&model, lora, &batch);
            assert_close(&values(&found), &values(&expected), "hidden");
            let expected = generic::score(&model, lora, &batch);
            let found = Flex::score(&model, lora, &batch);
            assert!((found.loss - expected.loss).abs() < 1e-4 * expected.loss);
            assert_eq!(found.correct, expected.correct);
        }
    }
}

#[test]
fn an_example_is_not_touched_by_its_neighbours_in_the_batch() {
    let model = model(config(None, false), WeightKind::F32);
    let both = batch(&[25, 31]);
    let alone = Flex::hidden(&model, None, &Batch::of_tokens(&both.tokens()[24..]));
    let packed = values(&Flex::hidden(&model, None, &both));
    assert_close(&packed[24 * 16..], &values(&alone), "second example");
}

/// How much two lists of numbers point the same way: 1 where one is a multiple of the other.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// What a GPU computes, on the CPU: single operations in `bf16` with an adapter in `f32`.
#[test]
fn in_bf16_loss_and_gradients_stay_close_and_the_adapters_are_f32() {
    let weights = random_weights(config(Some(5), true), 7);
    let device = Default::default();
    for kind in [WeightKind::Bf16, WeightKind::Int4] {
        // The same weights, computed with in f32.
        let exact = Llama::<Flex>::with_kind(&weights, kind, &device).unwrap();
        let half = Llama::<Flex>::in_bf16(&weights, kind, &device).unwrap();
        let lora = lora(&exact, &Target::ALL);
        let batch = batch(&[40, 12, 1]);
        let expected = Flex::loss_and_gradients(
            &exact,
            &lora,
            Factors::Both,
            &mut None,
            &batch,
            ActivationCheckpointing::Off,
        );
        let expected_loss = values(&expected.loss)[0];
        for checkpointing in [
            ActivationCheckpointing::Off,
            ActivationCheckpointing::PerBlock,
        ] {
            let found = generic::loss_and_gradients(
                &half,
                &lora,
                Factors::Both,
                &mut None,
                &batch,
                checkpointing,
            );
            let loss = values(&found.loss)[0];
            assert!(
                (loss - expected_loss).abs() < 0.01 * expected_loss,
                "{kind} {checkpointing:?}: {loss} instead of {expected_loss}"
            );
            for (at, (got, expected)) in found.factors.iter().zip(&expected.factors).enumerate() {
                // `values` takes nothing but f32.
                let cosine = cosine(&values(got), &values(expected));
                assert!(
                    cosine > 0.995,
                    "{kind} {checkpointing:?}, factor {at}: {cosine}"
                );
            }
        }
        let score = generic::score(&half, Some(&lora), &batch);
        assert!((score.loss - f64::from(expected_loss)).abs() < 0.01 * score.loss);
    }
}

#[test]
fn in_bf16_a_growing_sequence_is_the_whole() {
    let weights = random_weights(config(Some(5), false), 7);
    let model = Llama::<Flex>::in_bf16(&weights, WeightKind::Bf16, &Default::default()).unwrap();
    let lora = lora(&model, &Target::ALL);
    let tokens: Vec<u32> = (0..30).map(|at| (at * 7) % 40).collect();
    let float = |x: Tensor<Flex, 2>| values(&x.cast(burn::tensor::FloatDType::F32));
    let whole = float(model.hidden(&Batch::of_tokens(&tokens), Some(&lora), &mut None));
    let mut cache = crate::Cache::new();
    let mut grown = float(model.extend(&mut cache, &tokens[..20], Some(&lora)));
    for token in &tokens[20..] {
        grown.extend(float(model.extend(&mut cache, &[*token], Some(&lora))));
    }
    let cosine = cosine(&grown, &whole);
    assert!(cosine > 0.9995, "{cosine}");
}

#[test]
fn in_bf16_dropout_is_the_same_block_by_block() {
    let weights = random_weights(config(None, false), 7);
    let model = Llama::<Flex>::in_bf16(&weights, WeightKind::Bf16, &Default::default()).unwrap();
    let (lora, batch) = (lora(&model, &Target::ALL), batch(&[20, 7]));
    let run = |checkpointing| {
        let mut dropout = Dropout::new(0.3, SplitMix::new(1, 1));
        let factors = Factors::Both;
        generic::loss_and_gradients(&model, &lora, factors, &mut dropout, &batch, checkpointing)
    };
    let (normal, low) = (
        run(ActivationCheckpointing::Off),
        run(ActivationCheckpointing::PerBlock),
    );
    for (normal, low) in normal.factors.iter().zip(&low.factors) {
        assert!(cosine(&values(normal), &values(low)) > 0.995);
    }
}

/// Wide enough for several panels of packed weights in the blocks and in the output layer.
fn wide_config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 2500,
        hidden_size: 64,
        intermediate_size: 600,
        head_dim: 16,
        ..config(None, true)
    }
}

/// Panels, buffers that are used again and recomputed blocks leave every bit as it is. The test
/// prints a digest for each kind of weights: a change to the kernels that should not change
/// results gives the same ones as before on the same processor and number of threads.
#[test]
fn gradients_are_the_same_bits_in_every_run() {
    use fedlora_common::digest::DigestWriter;

    for kind in [
        WeightKind::F32,
        WeightKind::Bf16,
        WeightKind::Int8,
        WeightKind::Int4,
    ] {
        let model = model(wide_config(), kind);
        let lora = lora(&model, &Target::ALL);
        let examples = examples(&[60, 150, 9]);
        let batch = Batch::new(&examples, 200);
        let run = |checkpointing| {
            let mut dropout = Dropout::new(0.1, SplitMix::new(5, 5));
            let factors = Factors::Both;
            let found = Flex::loss_and_gradients(
                &model,
                &lora,
                factors,
                &mut dropout,
                &batch,
                checkpointing,
            );
            let score = Flex::score(&model, Some(&lora), &batch);
            let hidden = Flex::hidden(&model, Some(&lora), &batch);
            let mut writer = DigestWriter::new("gradients");
            let gradients = found.factors.iter().flat_map(values);
            for value in values(&found.loss).into_iter().chain(gradients) {
                writer.raw(&value.to_le_bytes());
            }
            for value in values(&hidden) {
                writer.raw(&value.to_le_bytes());
            }
            writer.raw(&score.loss.to_le_bytes());
            format!("{:?}", writer.finish())
        };
        let first = run(ActivationCheckpointing::Off);
        println!("{kind}: {first}");
        assert_eq!(run(ActivationCheckpointing::Off), first, "{kind}");
        assert_eq!(run(ActivationCheckpointing::PerBlock), first, "{kind}");
    }
}
