//! The arguments of `fedlora train`, and what they say about a training.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use fedlora_adapter::{Adapter, Target};
use fedlora_common::digest::Digest;
use fedlora_data::Batching;
use fedlora_model::Example;
use fedlora_model::{Memory, WeightKind};
use fedlora_train::{
    Batches, ClipNorm, Decay, Device, EvaluationInterval, Interval, Keep, LearningRate, Length,
    MaxTokens, Patience, RunOptions, RunSpec, TrainOption, TrainOptions, TrainOptionsError,
    WarmupShare, WeightDecay,
};

/// What it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    /// The base model: a Hugging Face folder, a GGUF file or a name on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    pub(crate) base: String,
    /// Records to train on; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Held-out records, scored during the training; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Vec<PathBuf>,
    /// Holds out this share of --data, chosen by each record's content (0.1: a tenth).
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SHARE",
        conflicts_with = "eval_data"
    )]
    pub(crate) hold_out: Option<f64>,
    /// The folder to write: it becomes a PEFT adapter. An unfinished training in it is gone on with.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Throw away what an earlier training left in --out, and begin anew.
    #[arg(long)]
    pub(crate) restart: bool,

    /// Rank of the adapter, 1 to 256.
    #[arg(long, default_value_t = 16, help_heading = "Adapter")]
    pub(crate) rank: usize,
    /// LoRA's alpha [default: twice the rank].
    #[arg(long, allow_negative_numbers = true, help_heading = "Adapter")]
    pub(crate) alpha: Option<f64>,
    /// Probability with which an input of the adapter is zeroed [default: 0, or --init-adapter's].
    #[arg(long, allow_negative_numbers = true, help_heading = "Adapter")]
    pub(crate) dropout: Option<f64>,
    /// Adapted layers.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "q,k,v,o,gate,up,down",
        help_heading = "Adapter"
    )]
    pub(crate) targets: Vec<Target>,
    /// Begin with this PEFT adapter instead of a fresh one.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["rank", "alpha", "targets"],
        help_heading = "Adapter"
    )]
    pub(crate) init_adapter: Option<PathBuf>,

    /// Passes over the data.
    #[arg(long, default_value_t = 3, help_heading = "Training")]
    pub(crate) epochs: usize,
    /// Optimizer steps, instead of passes.
    #[arg(long, conflicts_with = "epochs", help_heading = "Training")]
    pub(crate) steps: Option<usize>,
    /// Examples computed at a time.
    #[arg(long, default_value_t = 4, help_heading = "Training")]
    pub(crate) batch: usize,
    /// Batches summed before an optimizer step.
    #[arg(long, default_value_t = 1, help_heading = "Training")]
    pub(crate) accumulate: usize,
    /// Tokens at which an example is cut [default: 1024, or as many as the base takes].
    #[arg(long, help_heading = "Training")]
    pub(crate) seq: Option<usize>,
    /// Highest learning rate.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value_t = 2e-4,
        help_heading = "Training"
    )]
    pub(crate) lr: f64,
    /// How the learning rate falls after the warm-up.
    #[arg(long, value_enum, default_value_t = ScheduleKind::Cosine, help_heading = "Training")]
    pub(crate) schedule: ScheduleKind,
    /// Warm-up: a number of steps (20), or a share of them (0.03).
    #[arg(long, default_value = "0.03", help_heading = "Training")]
    pub(crate) warmup: Warmup,
    /// AdamW's decoupled weight decay.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value_t = 0.01,
        help_heading = "Training"
    )]
    pub(crate) weight_decay: f64,
    /// Largest joint norm of a step's gradients; 0 does not clip.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value_t = 1.0,
        help_heading = "Training"
    )]
    pub(crate) clip: f64,
    /// Fill each batch with whole examples up to --batch times --seq tokens. They do not see each other.
    #[arg(long, conflicts_with_all = ["bucket", "no_shuffle"], help_heading = "Training")]
    pub(crate) pack: bool,
    /// Put examples of like length into a batch.
    #[arg(long, conflicts_with = "no_shuffle", help_heading = "Training")]
    pub(crate) bucket: bool,
    /// Take the examples in the order of the files.
    #[arg(long, help_heading = "Training")]
    pub(crate) no_shuffle: bool,
    /// Seed of the fresh adapter, the order of examples and dropout.
    #[arg(long, default_value_t = 0, help_heading = "Training")]
    pub(crate) seed: u64,

    /// Steps between held-out scores [default: after each pass over the data].
    #[arg(long, value_name = "STEPS", help_heading = "Held-out scores")]
    pub(crate) eval_every: Option<usize>,
    /// End the training after so many held-out scores without a better one.
    #[arg(long, value_name = "SCORES", help_heading = "Held-out scores")]
    pub(crate) patience: Option<usize>,
    /// The adapter to keep: the one with the best held-out score, or the last.
    #[arg(long, value_enum, default_value_t = KeepKind::Best, help_heading = "Held-out scores")]
    pub(crate) keep: KeepKind,

    /// Where to train: cpu or cuda:N.
    #[arg(
        long,
        env = "FEDLORA_DEVICE",
        default_value = "cpu",
        help_heading = "Machine"
    )]
    pub(crate) device: Device,
    /// Threads that compute [default: one a processor].
    #[arg(long, help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
    /// What is kept for the backward pass: low computes each block twice and takes less memory.
    #[arg(long, value_enum, default_value_t = MemoryKind::Normal, help_heading = "Machine")]
    pub(crate) memory: MemoryKind,
    /// How the frozen base is held in memory: f32, bf16, q8 or q4 [default: f32, bf16 on a GPU].
    #[arg(long, value_name = "KIND", help_heading = "Machine")]
    pub(crate) base_dtype: Option<WeightKind>,
    /// Begin even where the memory is computed not to be enough.
    #[arg(long, help_heading = "Machine")]
    pub(crate) ignore_memory: bool,
    /// What lies at most between two checkpoints: steps (50) or time (30s, 5m).
    #[arg(
        long,
        default_value = "5m",
        value_name = "INTERVAL",
        help_heading = "Machine"
    )]
    pub(crate) checkpoint_every: Interval,
    /// Steps between printed lines. Every step stands in the folder's metrics.jsonl.
    #[arg(
        long,
        default_value_t = 10,
        value_name = "STEPS",
        help_heading = "Machine"
    )]
    pub(crate) log_every: usize,
    /// Also append the printed lines to this file.
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub(crate) log_file: Option<PathBuf>,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleKind {
    /// Half a cosine, to zero.
    Cosine,
    /// A straight line, to zero.
    Linear,
    /// Not at all.
    Constant,
}

/// Which adapter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeepKind {
    /// The one with the lowest held-out loss.
    Best,
    /// The one after the last step.
    Last,
}

/// What is kept for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemoryKind {
    /// What it needs.
    Normal,
    /// The blocks' inputs alone.
    Low,
}

impl From<MemoryKind> for Memory {
    fn from(kind: MemoryKind) -> Self {
        match kind {
            MemoryKind::Normal => Self::Normal,
            MemoryKind::Low => Self::Low,
        }
    }
}

/// How long the learning rate rises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Warmup {
    /// So many steps.
    Steps(usize),
    /// A share of all steps.
    Share(f64),
}

impl FromStr for Warmup {
    type Err = WarmupError;

    fn from_str(text: &str) -> Result<Self, WarmupError> {
        if let Ok(steps) = text.parse() {
            return Ok(Self::Steps(steps));
        }
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self::Share(share)),
            _ => Err(WarmupError),
        }
    }
}

/// Text that is no warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a number of steps (20), or a share of them from 0 to 1 (0.03)")]
pub(crate) struct WarmupError;

/// How the training goes, with examples of at most `seq` tokens.
///
/// # Errors
/// An option out of range.
pub(super) fn options(args: &TrainArgs, seq: usize) -> Result<RunOptions, TrainOptionsError> {
    let examples = args.batch;
    let batching = if args.pack {
        Batching::Packed {
            tokens: args.batch.saturating_mul(seq),
        }
    } else if args.bucket {
        Batching::Bucketed { examples }
    } else if args.no_shuffle {
        Batching::InOrder { examples }
    } else {
        Batching::Shuffled { examples }
    };
    TrainOption::BatchSize.count(args.batch)?;
    let clip_norm = match args.clip {
        0.0 => None,
        norm => Some(ClipNorm::new(norm)?),
    };
    Ok(RunOptions {
        train: TrainOptions {
            batches: Batches::Planned {
                batching,
                length: match args.steps {
                    Some(steps) => Length::Steps(TrainOption::Steps.count(steps)?),
                    None => Length::Epochs(TrainOption::Epochs.count(args.epochs)?),
                },
            },
            accumulation: TrainOption::Accumulation.count(args.accumulate)?,
            max_tokens: MaxTokens::new(seq)?,
            learning_rate: LearningRate::new(args.lr)?,
            decay: match args.schedule {
                ScheduleKind::Cosine => Decay::Cosine,
                ScheduleKind::Linear => Decay::Linear,
                ScheduleKind::Constant => Decay::Constant,
            },
            warmup: match args.warmup {
                Warmup::Steps(steps) => fedlora_train::Warmup::Steps(steps),
                Warmup::Share(share) => fedlora_train::Warmup::Share(WarmupShare::new(share)?),
            },
            span: None,
            weight_decay: WeightDecay::new(args.weight_decay)?,
            clip_norm,
            seed: args.seed,
            memory: args.memory.into(),
        },
        evaluate_every: match args.eval_every.and_then(NonZeroUsize::new) {
            Some(steps) => EvaluationInterval::Steps(steps),
            None => EvaluationInterval::Epoch,
        },
        patience: args.patience.and_then(NonZeroUsize::new).map(Patience::new),
        keep: match args.keep {
            KeepKind::Best => Keep::Best,
            KeepKind::Last => Keep::Last,
        },
        checkpoint_every: args.checkpoint_every,
    })
}

/// All that the adapter depends on. What does not change it (memory, printing, checkpoints)
/// may be another when a training is gone on with. The threads of the CPU do change its last
/// bits: sums over rows are made thread by thread.
pub(super) fn spec(
    args: &TrainArgs,
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
    let spec = match args.device {
        Device::Cpu => RunSpec::default().with("threads", rayon::current_num_threads()),
        Device::Cuda(_) => RunSpec::default(),
    };
    spec.with("base model", base)
        .with(
            "base dtype",
            args.base_dtype.unwrap_or(args.device.base_kind()),
        )
        .with("device", args.device)
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
        .with("schedule", name(args.schedule))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_is_steps_or_a_share() {
        assert_eq!("20".parse(), Ok(Warmup::Steps(20)));
        assert_eq!("0".parse(), Ok(Warmup::Steps(0)));
        assert_eq!("0.03".parse(), Ok(Warmup::Share(0.03)));
        for bad in ["", "-1", "1.5", "NaN", "3%"] {
            assert_eq!(bad.parse::<Warmup>(), Err(WarmupError), "{bad:?}");
        }
    }
}
