//! Whole trainings on a tiny random model: interrupted, killed, and resumed.

use std::cell::Cell;

use fedlora_adapter::{LoraConfig, Target};

use std::num::NonZeroUsize;

use super::*;
use crate::remedy::Remedy;
use crate::run::early_stopping::Patience;
use crate::run::interval::{EvaluationInterval, Interval};
use crate::run::output_error::OutputError;
use crate::step::options::{Batches, LearningRate, Length, TrainOptions, Warmup};
use crate::tests::{engine, examples};
use fedlora_data::Batching;

const STEPS: usize = 9;

fn adapter(dropout: f64) -> Adapter {
    let config = LoraConfig::new(4, 8.0, dropout, Target::ALL).unwrap();
    engine().init_adapter(&config, 1).unwrap()
}

fn count(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).unwrap()
}

fn epochs(batching: Batching, epochs: usize) -> Batches {
    Batches::Planned {
        batching,
        length: Length::Epochs(count(epochs)),
    }
}

fn options() -> RunOptions {
    RunOptions {
        train: TrainOptions {
            batches: Batches::Continuous {
                batch_size: count(3),
                shuffle: true,
                steps: count(STEPS),
            },
            learning_rate: LearningRate::new(0.02).unwrap(),
            warmup: Warmup::Steps(2),
            seed: 3,
            ..TrainOptions::default()
        },
        evaluate_every: EvaluationInterval::Steps(count(2)),
        patience: None,
        keep: Keep::Best,
        checkpoint_every: Interval::Steps(count(2)),
    }
}

/// One kind of training.
struct Case {
    engine: Engine,
    adapter: Adapter,
    training: Vec<Example>,
    held_out: Vec<Example>,
    options: RunOptions,
}

impl Case {
    fn new(dropout: f64, options: RunOptions) -> Self {
        let mut training = examples();
        let held_out = training.split_off(9);
        Self {
            engine: engine(),
            adapter: adapter(dropout),
            training,
            held_out,
            options,
        }
    }

    /// Runs in `dir` until `stop` says so.
    fn run(
        &self,
        dir: &std::path::Path,
        stop: &dyn Fn() -> bool,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<RunOutcome, RunError> {
        let spec = RunSpec::default()
            .with("seed", self.options.train.seed)
            .with_examples("data", &self.training);
        let setup = Setup {
            engine: &self.engine,
            base_name: "tiny",
            adapter: &self.adapter,
            training: &self.training,
            held_out: &self.held_out,
            options: &self.options,
            spec: &spec,
        };
        let mut folder = OutputFolder::open(dir)?;
        folder.begin(&spec, false)?;
        run(&setup, &mut folder, stop, watch)
    }

    fn whole(&self) -> (Summary, Files) {
        let dir = tempfile::tempdir().unwrap();
        let RunOutcome::Finished(summary) = self.run(dir.path(), &|| false, &mut |_| ()).unwrap()
        else {
            panic!("nobody stopped it");
        };
        (summary, Files::of(dir.path()))
    }

    /// Runs in `dir`, asked to stop after `steps` steps of this start.
    fn some_steps(&self, dir: &std::path::Path, steps: usize) -> RunOutcome {
        let taken = Cell::new(0);
        self.run(dir, &|| taken.get() >= steps, &mut |event| {
            if let Event::Step { .. } = event {
                taken.set(taken.get() + 1);
            }
        })
        .unwrap()
    }
}

/// What a training leaves, times left out.
#[derive(Debug, PartialEq)]
struct Files {
    adapter: Vec<u8>,
    metrics: Vec<serde_json::Value>,
}

impl Files {
    fn of(dir: &std::path::Path) -> Self {
        let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        let metrics = text
            .lines()
            .map(|line| {
                let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                for time in ["seconds", "tokens_per_second"] {
                    line.as_object_mut().unwrap().remove(time);
                }
                line
            })
            .collect();
        assert!(!dir.join("checkpoints").exists());
        Self {
            adapter: std::fs::read(dir.join("adapter_model.safetensors")).unwrap(),
            metrics,
        }
    }
}

fn cases() -> Vec<(&'static str, Case)> {
    let planned = |batching| {
        let mut options = options();
        options.train.batches = epochs(batching, 3);
        options.evaluate_every = EvaluationInterval::Epoch;
        options
    };
    let mut accumulated = options();
    accumulated.train.batches = epochs(Batching::Shuffled { examples: 2 }, 3);
    accumulated.train.accumulation = count(2);
    let mut early = options();
    early.train.learning_rate = LearningRate::new(0.5).unwrap();
    early.evaluate_every = EvaluationInterval::Steps(count(1));
    early.patience = Some(Patience::new(count(2)));
    vec![
        ("continuous, dropout", Case::new(0.2, options())),
        ("accumulated, dropout", Case::new(0.2, accumulated)),
        (
            "bucketed",
            Case::new(0.0, planned(Batching::Bucketed { examples: 3 })),
        ),
        (
            "packed, dropout",
            Case::new(0.1, planned(Batching::Packed { tokens: 30 })),
        ),
        ("stopping early", Case::new(0.0, early)),
    ]
}

#[test]
fn interrupted_after_every_step_and_resumed_it_ends_the_same() {
    for (name, case) in cases() {
        let (summary, files) = case.whole();
        for each in [1, 2, 4] {
            let dir = tempfile::tempdir().unwrap();
            let mut starts = 0;
            let last = loop {
                starts += 1;
                match case.some_steps(dir.path(), each) {
                    RunOutcome::Interrupted { step, .. } => {
                        assert!(step <= starts * each, "{name}")
                    }
                    RunOutcome::Finished(summary) => break summary,
                }
            };
            assert!(starts > 1 || each >= summary.steps, "{name}");
            assert_eq!(Files::of(dir.path()), files, "{name}, {each} steps a time");
            assert_eq!(last.adapter_digest, summary.adapter_digest, "{name}");
            assert_eq!(
                (last.steps, last.kept_step, last.stopped_early),
                (summary.steps, summary.kept_step, summary.stopped_early),
                "{name}"
            );
            assert_eq!(
                (last.tokens, last.train_loss, last.eval_loss),
                (summary.tokens, summary.train_loss, summary.eval_loss),
                "{name}"
            );
        }
    }
}

/// What ends a program without its doing: the folder as it stands after some event.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn killed_after_any_event_it_loses_at_most_an_interval_and_ends_the_same() {
    let (_, case) = cases().remove(1);
    let (_, files) = case.whole();
    let (dir, copies) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut stands = Vec::new();
    let mut done = 0;
    case.run(dir.path(), &|| false, &mut |event| {
        if let Event::Step { record, .. } = event {
            done = record.step;
        }
        let to = copies.path().join(stands.len().to_string());
        copy(dir.path(), &to);
        stands.push((to, done));
    })
    .unwrap();
    assert!(stands.len() > 12);
    for (stand, done) in stands {
        let mut from = 0;
        let outcome = case.run(&stand, &|| false, &mut |event| {
            if let Event::Resumed { step, .. } = event {
                from = step;
            }
        });
        assert!(matches!(outcome, Ok(RunOutcome::Finished(_))));
        assert!(from <= done && from + 2 >= done, "at {done}, from {from}");
        assert_eq!(Files::of(&stand), files, "killed at step {done}");
    }
}

#[test]
fn the_best_adapter_is_kept_and_patience_ends_the_training() {
    let (_, case) = cases().remove(4);
    let (summary, _) = case.whole();
    assert!(summary.stopped_early && summary.steps < STEPS);
    assert_eq!(summary.steps, summary.kept_step + 2);
    let dir = tempfile::tempdir().unwrap();
    let mut scores = Vec::new();
    case.run(dir.path(), &|| false, &mut |event| {
        if let Event::Evaluated(record) = event {
            scores.push(record.eval_loss);
        }
    })
    .unwrap();
    let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(summary.eval_loss, Some(lowest));
    let kept = peft::load(dir.path()).unwrap();
    let again = case.engine.evaluate(Some(&kept), &case.held_out).unwrap();
    assert_eq!(again.loss, lowest);

    let mut last = case;
    last.options.keep = Keep::Last;
    let (summary, _) = last.whole();
    assert_eq!(summary.kept_step, summary.steps);
    assert!(summary.eval_loss > Some(lowest));
}

#[test]
fn a_damaged_checkpoint_costs_an_interval_and_all_damaged_is_an_error() {
    let (_, case) = cases().remove(0);
    let (_, files) = case.whole();
    let dir = tempfile::tempdir().unwrap();
    case.some_steps(dir.path(), 5);
    let folder = dir.path().join("checkpoints");
    let damage = |step: usize| {
        let path = folder.join(format!("step-{step:010}.safetensors"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    };
    damage(5);
    let mut said = Vec::new();
    let outcome = case.run(dir.path(), &|| true, &mut |event| match event {
        Event::Damaged(error) => said.push(error.to_string()),
        Event::Resumed { step, .. } => said.push(step.to_string()),
        _ => {}
    });
    let outcome = outcome.unwrap();
    assert_eq!(
        outcome,
        RunOutcome::Interrupted {
            step: 4,
            steps: STEPS
        }
    );
    assert!(said[0].contains("step-0000000005"), "{said:?}");
    assert_eq!(said[1], "4");
    damage(4);
    let error = case.run(dir.path(), &|| false, &mut |_| ()).unwrap_err();
    assert_eq!(error.remedy(), Some(Remedy::Restart), "{error}");
    assert!(folder.exists());
    drop(files);
}

#[test]
fn a_run_does_not_resume_as_another_and_is_not_done_twice() {
    let (_, mut case) = cases().remove(0);
    let dir = tempfile::tempdir().unwrap();
    case.some_steps(dir.path(), 3);
    case.options.train.seed = 4;
    let error = case.run(dir.path(), &|| false, &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().contains("seed: it was begun with 3"),
        "{error}"
    );
    case.options.train.seed = 3;
    case.training.swap(0, 1);
    let error = case.run(dir.path(), &|| false, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("data: it was begun"), "{error}");
    case.training.swap(0, 1);
    case.run(dir.path(), &|| false, &mut |_| ()).unwrap();
    let error = case.run(dir.path(), &|| false, &mut |_| ()).unwrap_err();
    assert!(
        matches!(error, RunError::Output(OutputError::Finished { .. })),
        "{error}"
    );
}

#[test]
fn tokens_are_counted_over_whole_epochs() {
    let mut options = options();
    options.train.batches = epochs(Batching::Packed { tokens: 30 }, 2);
    let case = Case::new(0.0, options);
    let (summary, _) = case.whole();
    let each: usize = case.training.iter().map(|e| e.tokens().len()).sum();
    let target_tokens: usize = case.training.iter().map(Example::target_tokens).sum();
    assert_eq!(summary.tokens, 2 * each as u64);
    assert_eq!(summary.target_tokens, 2 * target_tokens as u64);
    assert!(summary.tokens_per_second > 0.0 && summary.seconds > 0.0);
    if cfg!(target_os = "linux") {
        assert!(summary.peak_memory_bytes.unwrap() > 1 << 20);
    }
}
