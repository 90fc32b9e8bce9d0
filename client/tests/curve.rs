//! Training against PyTorch and PEFT: the numbers in `golden/curve.json`,
//! `golden/curve-qwen3.json` and `golden/curve-gemma3.json`, which `examples/oracle/training_curve.py` writes.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;

use fedlora_adapter::{Factors, peft};
use fedlora_data::Batching;
use fedlora_model::ActivationCheckpointing;
use fedlora_model::Example;
use fedlora_train::{
    Batches, ClipNorm, Device, Engine, LearningRate, Length, Progress, TrainOptions, Warmup,
};
use serde_json::Value;

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

struct Curve {
    /// Where the adapter is that training begins with.
    start: PathBuf,
    rank: usize,
    /// By how much PyTorch's loss falls at least.
    learnt: f64,
    golden: Value,
    engine: Engine,
    examples: Vec<Example>,
}

impl Curve {
    /// The fifty steps.
    fn fifty() -> Self {
        Self::read("curve", "tiny", (8, 1.0))
    }

    fn read(name: &str, base: &str, (rank, learnt): (usize, f64)) -> Self {
        let text = std::fs::read_to_string(golden_dir().join(format!("{name}.json"))).unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        let prompt = golden["prompt"].as_u64().unwrap() as usize;
        let examples = golden["examples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tokens| {
                let tokens: Vec<u32> = tokens
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|id| id.as_u64().unwrap() as u32)
                    .collect();
                let counts = (0..tokens.len()).map(|at| at >= prompt).collect();
                Example::new(tokens, counts)
            })
            .collect();
        Self {
            start: golden_dir().join(format!("{name}-start")),
            rank,
            learnt,
            golden,
            engine: Engine::open(&golden_dir().join(base), &Device::Cpu).unwrap(),
            examples,
        }
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        let values = self.golden[key].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    }

    fn options(&self) -> TrainOptions {
        TrainOptions {
            batches: self.batches(self.count("batch")),
            learning_rate: LearningRate::new(self.number("rate")).unwrap(),
            warmup: Warmup::Steps(self.number("warmup") as usize),
            clip_norm: Some(ClipNorm::new(self.number("clip")).unwrap()),
            ..TrainOptions::default()
        }
    }

    fn batches(&self, batch_size: NonZeroUsize) -> Batches {
        Batches::Continuous {
            batch_size,
            shuffle: false,
            steps: self.count("steps"),
        }
    }

    fn number(&self, key: &str) -> f64 {
        self.golden[key].as_f64().unwrap()
    }

    fn count(&self, key: &str) -> NonZeroUsize {
        NonZeroUsize::new(self.number(key) as usize).unwrap()
    }

    fn train(&self, options: &TrainOptions) -> Vec<Progress> {
        let start = peft::load(&self.start).unwrap();
        assert_eq!(
            (start.config().rank(), start.config().targets().len()),
            (self.rank, 7)
        );
        let mut steps = Vec::new();
        self.engine
            .train(
                &start,
                Factors::Both,
                &self.examples,
                options,
                &mut |step| {
                    steps.push(step);
                    ControlFlow::Continue(())
                },
            )
            .unwrap();
        steps
    }

    fn assert_follows(&self, options: &TrainOptions) {
        let steps = self.train(options);
        let (losses, norms) = (self.numbers("losses"), self.numbers("norms"));
        assert_eq!(steps.len(), losses.len());
        for (step, (loss, norm)) in steps.iter().zip(losses.iter().zip(&norms)) {
            let off = |got: f64, expected: f64| (got / expected - 1.0).abs();
            assert!(off(step.loss, *loss) < 1e-3, "{step:?} instead of {loss}");
            assert!(
                off(step.gradient_norm, *norm) < 1e-2,
                "{step:?} instead of {norm}"
            );
        }
        let last = losses[losses.len() - 1];
        assert!(last < losses[0] - self.learnt, "PyTorch learnt nothing");
    }
}

#[test]
fn fifty_steps_follow_pytorch_and_peft() {
    let curve = Curve::fifty();
    curve.assert_follows(&curve.options());
}

/// Gradients flow through the norms of queries and keys.
#[test]
fn twenty_steps_of_qwen3_follow_pytorch_and_peft() {
    let curve = Curve::read("curve-qwen3", "architectures/qwen3", (4, 0.3));
    assert_eq!(curve.count("steps").get(), 20);
    curve.assert_follows(&curve.options());
    curve.assert_follows(&TrainOptions {
        checkpointing: ActivationCheckpointing::PerBlock,
        ..curve.options()
    });
}

/// Gradients flow through norms on all sides, GeGLU and blocks of two rotations.
#[test]
fn twenty_steps_of_gemma3_follow_pytorch_and_peft() {
    let curve = Curve::read("curve-gemma3", "architectures/gemma3", (4, 0.3));
    assert_eq!(curve.count("steps").get(), 20);
    for checkpointing in [
        ActivationCheckpointing::Off,
        ActivationCheckpointing::PerBlock,
    ] {
        curve.assert_follows(&TrainOptions {
            checkpointing,
            ..curve.options()
        });
    }
}

#[test]
fn so_do_accumulated_planned_and_low_memory_steps() {
    let curve = Curve::fifty();
    let batch = curve.count("batch");
    curve.assert_follows(&TrainOptions {
        batches: curve.batches(NonZeroUsize::MIN),
        accumulation: batch,
        ..curve.options()
    });
    // 24 examples are six whole batches of four: a planned pass is the same.
    curve.assert_follows(&TrainOptions {
        batches: Batches::Planned {
            batching: Batching::InOrder {
                examples: batch.get(),
            },
            length: Length::Steps(curve.count("steps")),
        },
        ..curve.options()
    });
    curve.assert_follows(&TrainOptions {
        checkpointing: ActivationCheckpointing::PerBlock,
        ..curve.options()
    });
}

#[test]
fn another_learning_rate_does_not_follow() {
    let curve = Curve::fifty();
    let options = curve.options();
    let other = TrainOptions {
        learning_rate: LearningRate::new(1.1 * options.learning_rate.get()).unwrap(),
        ..options
    };
    let losses = curve.numbers("losses");
    let off = curve
        .train(&other)
        .iter()
        .zip(&losses)
        .any(|(step, loss)| (step.loss / loss - 1.0).abs() > 1e-3);
    assert!(off, "the tolerance hides a wrong learning rate");
}
