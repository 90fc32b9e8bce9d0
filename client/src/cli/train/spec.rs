//! What a training run's adapter depends on, as the run's folder records it: a run resumes only
//! where all of it is the same.

use std::fmt;

use clap::ValueEnum;
use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_data::Batching;
use fedlora_model::Example;
use fedlora_train::{Batches, ClipNorm, Device, RunOptions, RunSpec};

use super::args::{TrainArgs, Warmup};
use crate::cli::args::ModelSpec;

/// Everything that the adapter depends on. What does not change the adapter (memory, printing,
/// checkpoints) may differ when a run resumes. The number of CPU threads changes its last bits,
/// since each thread sums rows of its own.
pub(super) fn spec(
    args: &TrainArgs,
    model: &ModelSpec,
    options: &RunOptions,
    base: Digest,
    adapter: &Adapter,
    training: &[Example],
    held_out: &[Example],
) -> RunSpec {
    let config = adapter.config();
    let targets: Vec<String> = config.targets().iter().map(ToString::to_string).collect();
    let train = &options.train;
    let length = match args.steps {
        Some(steps) => format!("{steps} steps"),
        None => format!("{} epochs", args.epochs),
    };
    let spec = match model.device {
        Device::Cpu => RunSpec::default().with("threads", rayon::current_num_threads()),
        Device::Cuda(_) => RunSpec::default(),
    };
    let spec = match config.is_rank_stabilised() {
        true => spec.with("rslora", true),
        false => spec,
    };
    let ratio = train.rate_ratio.get();
    let spec = match ratio == 1.0 {
        true => spec,
        false => spec.with("loraplus-lr-ratio", ratio),
    };
    spec.with("base model", base)
        .with("base dtype", model.kind)
        .with("device", model.device)
        .with_examples("training examples", training)
        .with_examples("held-out examples", held_out)
        .with("first adapter", adapter.digest())
        .with("rank", config.rank())
        .with("alpha", config.alpha())
        .with("dropout", config.dropout())
        .with("targets", targets.join(","))
        .with("length", length)
        .with("batches", BatchesName(train.batches))
        .with("accumulate", train.accumulation)
        .with("seq", train.max_tokens.get())
        .with("lr", train.learning_rate.get())
        .with("schedule", train.decay)
        .with("warmup", WarmupName(args.warmup))
        .with("weight decay", train.weight_decay.get())
        .with("clip", train.clip_norm.map_or(0.0, ClipNorm::get))
        .with("seed", train.seed)
        .with("eval-every", OrNone(args.eval_every))
        .with("patience", OrNone(args.patience))
        .with("keep", name(args.keep))
}

struct BatchesName(Batches);

impl fmt::Display for BatchesName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batching = match self.0 {
            Batches::Continuous { batch_size, .. } => return write!(f, "{batch_size}"),
            Batches::Planned { batching, .. } => batching,
        };
        match batching {
            Batching::Packed { tokens } => write!(f, "packed up to {tokens} tokens"),
            Batching::Bucketed { examples } => write!(f, "{examples} of like length"),
            Batching::InOrder { examples } => write!(f, "{examples} in order"),
            Batching::Shuffled { examples } => write!(f, "{examples} shuffled"),
        }
    }
}

struct WarmupName(Warmup);

impl fmt::Display for WarmupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Warmup::Steps(steps) => write!(f, "{steps} steps"),
            Warmup::Share(share) => write!(f, "{share} of the steps"),
        }
    }
}

struct OrNone(Option<usize>);

impl fmt::Display for OrNone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("not set"),
        }
    }
}

/// The name under which a value is given on the command line.
fn name(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}
