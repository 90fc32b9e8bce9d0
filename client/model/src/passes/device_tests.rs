//! The passes of a GPU against those of the CPU: the same weights, adapter and batch on both. The
//! suite runs on the CPU's generic passes as well, so that it is known to be right where there is
//! no GPU.

use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use fedlora_adapter::{Factors, Target};

use super::tests::{config, cosine, examples_of, lora_adapter};
use super::*;
use crate::testing::random_weights;
use crate::{BaseWeights, Cache, SplitMix, WeightKind};

/// A backend under test, and the bounds of what it computes in `f32`.
struct Suite<B: Backend> {
    device: B::Device,
    /// Largest difference of a gradient, as a share of its factor's largest element.
    gradients: f32,
    /// Largest relative difference of a loss.
    losses: f32,
}

const LENGTHS: [usize; 3] = [40, 12, 300];

fn floats<B: Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    x.cast(FloatDType::F32).into_data().to_vec().unwrap()
}

/// Loss and gradients as plain numbers.
struct Found {
    loss: f32,
    factors: Vec<Vec<f32>>,
}

impl Found {
    fn of<B: Backend>(gradients: Gradients<B>) -> Self {
        Self {
            loss: floats(gradients.loss)[0],
            factors: gradients.factors.into_iter().map(floats).collect(),
        }
    }

    /// The largest difference in any factor, as a share of that factor's largest element.
    fn error(&self, expected: &Self) -> f32 {
        assert_eq!(self.factors.len(), expected.factors.len());
        let factors = self.factors.iter().zip(&expected.factors);
        let errors = factors.map(|(got, expected)| {
            let size = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
            let differences = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
            // A NaN is no agreement.
            differences.fold(0.0, |most: f32, x| if x <= most { most } else { x }) / size
        });
        errors.fold(0.0, |most: f32, x| if x <= most { most } else { x })
    }

    /// The least cosine of any factor.
    fn cosine(&self, expected: &Self) -> f64 {
        let factors = self.factors.iter().zip(&expected.factors);
        factors.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min)
    }
}

fn run<B: Passes>(
    model: &Llama<B>,
    device: &B::Device,
    checkpointing: ActivationCheckpointing,
    dropout: f64,
) -> Found {
    let adapter = lora_adapter(model.config(), &Target::ALL, 8);
    let lora = Lora::<B>::from_adapter(&adapter, model.config(), device).unwrap();
    let batch = Batch::new(&examples_of(&LENGTHS, 9), 400);
    let mut dropout = Dropout::new(dropout, SplitMix::new(1, 1));
    let factors = Factors::Both;
    Found::of(generic::loss_and_gradients(
        model,
        &lora,
        factors,
        &mut dropout,
        &batch,
        checkpointing,
    ))
}

fn weights(window: Option<usize>) -> BaseWeights {
    let mut config = config(window, true);
    config.max_position_embeddings = 400;
    random_weights(config, 7)
}

const WAYS: [ActivationCheckpointing; 2] = [
    ActivationCheckpointing::Off,
    ActivationCheckpointing::PerBlock,
];

impl<B: Passes> Suite<B> {
    fn in_single_precision(&self) {
        for window in [None, Some(5)] {
            let weights = weights(window);
            for kind in [WeightKind::F32, WeightKind::Int8, WeightKind::Int4] {
                let here = Llama::<Flex>::with_kind(&weights, kind, &Default::default()).unwrap();
                let there = Llama::<B>::with_kind(&weights, kind, &self.device).unwrap();
                let expected = run(&here, &Default::default(), WAYS[0], 0.0);
                for way in WAYS {
                    let found = run(&there, &self.device, way, 0.0);
                    let (loss, error) = (found.loss, found.error(&expected));
                    println!("{kind} {way:?} {window:?}: loss {loss}, gradients {error:.1e}");
                    let difference = (loss - expected.loss).abs() / expected.loss;
                    assert!(difference <= self.losses, "{kind} {way:?}: {difference}");
                    assert!(error <= self.gradients, "{kind} {way:?}: {error}");
                }
            }
        }
    }

    fn in_bf16(&self) {
        let weights = weights(Some(5));
        for kind in [WeightKind::Bf16, WeightKind::Int4] {
            let here = Llama::<Flex>::with_kind(&weights, kind, &Default::default()).unwrap();
            let there = Llama::<B>::in_bf16(&weights, kind, &self.device).unwrap();
            let expected = run(&here, &Default::default(), WAYS[0], 0.0);
            for way in WAYS {
                let found = run(&there, &self.device, way, 0.0);
                let difference = (found.loss - expected.loss).abs() / expected.loss;
                let cosine = found.cosine(&expected);
                println!("bf16, {kind} {way:?}: loss {difference:.1e}, cosine {cosine:.5}");
                assert!(difference < 0.01, "{kind} {way:?}: {difference}");
                assert!(cosine > 0.99, "{kind} {way:?}: {cosine}");
            }
        }
    }

    fn scores_and_hidden_states(&self) {
        let weights = weights(None);
        let here = Llama::<Flex>::new(&weights, &Default::default()).unwrap();
        let there = Llama::<B>::new(&weights, &self.device).unwrap();
        let batch = Batch::new(&examples_of(&LENGTHS, 9), 400);
        let expected = generic::score(&here, None, &batch);
        let found = generic::score(&there, None, &batch);
        let difference = (found.loss - expected.loss).abs() / expected.loss;
        assert!(difference <= f64::from(self.losses), "{difference}");
        assert!(found.correct.abs_diff(expected.correct) <= 2);
        let expected = floats(here.hidden(&batch, None, &mut None));
        let found = floats(there.hidden(&batch, None, &mut None));
        let cosine = cosine(&found, &expected);
        assert!(cosine > 0.99999, "{cosine}");
    }

    fn dropout_repeats(&self) {
        let there = Llama::<B>::new(&weights(None), &self.device).unwrap();
        let without = run(&there, &self.device, WAYS[0], 0.0);
        let [once, again] = [(); 2].map(|()| run(&there, &self.device, WAYS[0], 0.3));
        assert_ne!(once.loss, without.loss);
        let low = run(&there, &self.device, WAYS[1], 0.3);
        println!(
            "again {:.1e}, by block {:.1e}",
            again.error(&once),
            low.error(&once)
        );
        assert!(again.error(&once) <= self.gradients);
        assert!(low.error(&once) <= self.gradients);
    }

    fn a_growing_sequence_is_the_whole(&self) {
        let model = Llama::<B>::new(&weights(Some(5)), &self.device).unwrap();
        let adapter = lora_adapter(model.config(), &Target::ALL, 8);
        let lora = Lora::<B>::from_adapter(&adapter, model.config(), &self.device).unwrap();
        let tokens: Vec<u32> = (0..30).map(|at| (at * 7) % 40).collect();
        let whole = floats(model.hidden(&Batch::of_tokens(&tokens), Some(&lora), &mut None));
        let mut cache = Cache::new();
        let mut grown = floats(model.extend(&mut cache, &tokens[..20], Some(&lora)));
        for token in &tokens[20..] {
            grown.extend(floats(model.extend(&mut cache, &[*token], Some(&lora))));
        }
        let cosine = cosine(&grown, &whole);
        assert!(cosine > 0.99999, "{cosine}");
    }

    fn all(&self) {
        self.in_single_precision();
        self.in_bf16();
        self.scores_and_hidden_states();
        self.dropout_repeats();
        self.a_growing_sequence_is_the_whole();
    }
}

#[test]
fn the_suite_holds_on_the_cpu() {
    Suite::<Flex> {
        device: Default::default(),
        gradients: 1e-3,
        losses: 1e-5,
    }
    .all();
}

/// Needs an NVIDIA GPU: `cargo test --release -p fedlora-model --features cuda -- --ignored cuda`.
#[cfg(feature = "cuda")]
#[test]
#[ignore = "needs an NVIDIA GPU"]
fn the_suite_holds_on_cuda() {
    Suite::<burn_cuda::Cuda> {
        device: burn_cuda::CudaDevice::new(0),
        // Products of `f32` may be taken in TF32, which keeps 10 bits.
        gradients: 2e-2,
        losses: 1e-3,
    }
    .all();
}
