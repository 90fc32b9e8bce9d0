//! The options of `fedlora train`, and the training options that they stand for.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fedlora_data::Batching;
use fedlora_shell::values;
use fedlora_train::{
    Batches, ClipNorm, Decay, EvaluationInterval, Interval, Keep, LearningRate, Length, MaxTokens,
    Patience, Proximal, RateRatio, RunOptions, TrainOption, TrainOptions, TrainOptionsError,
    WarmupShare, WeightDecay,
};

use crate::cli::args::{DataArgs, MemoryArgs, ModelArgs, ShapeArgs};

/// Options of `fedlora train`.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) data: DataArgs,
    /// The folder to write, which becomes a PEFT adapter. Resumes an unfinished run found there.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Delete what an earlier run left in --out, and begin anew.
    #[arg(long)]
    pub(super) restart: bool,

    #[command(flatten)]
    pub(super) shape: ShapeArgs,
    /// LoRA's alpha [default: twice the rank].
    #[arg(long, allow_negative_numbers = true, help_heading = "Adapter")]
    pub(super) alpha: Option<f64>,
    /// Scale by alpha / sqrt(rank) in place of alpha / rank (rsLoRA), as suits high ranks.
    #[arg(long, help_heading = "Adapter")]
    pub(super) rslora: bool,
    /// Dropout probability of the adapter's inputs [default: 0, or that of --init-adapter].
    #[arg(long, allow_negative_numbers = true, help_heading = "Adapter")]
    pub(super) dropout: Option<f64>,
    /// Start from this PEFT adapter instead of a fresh one.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["rank", "alpha", "rslora", "targets"],
        help_heading = "Adapter"
    )]
    pub(super) init_adapter: Option<PathBuf>,

    /// Passes over the data.
    #[arg(
        long,
        default_value_t = 3,
        value_parser = values::positive,
        help_heading = "Training"
    )]
    pub(super) epochs: usize,
    /// Optimizer steps, instead of --epochs.
    #[arg(
        long,
        value_parser = values::positive,
        conflicts_with = "epochs",
        help_heading = "Training"
    )]
    pub(super) steps: Option<usize>,
    /// Examples computed at a time.
    #[arg(
        long,
        default_value_t = 4,
        value_parser = values::positive,
        help_heading = "Training"
    )]
    pub(super) batch: usize,
    /// Batches whose gradients are summed before an optimizer step.
    #[arg(
        long,
        default_value_t = 1,
        value_parser = values::positive,
        help_heading = "Training"
    )]
    pub(super) accumulate: usize,
    /// Tokens at which an example is cut [default: 1024, or as many as the base takes].
    #[arg(
        long,
        value_name = "TOKENS",
        value_parser = values::sequence_length,
        help_heading = "Training"
    )]
    pub(super) seq: Option<usize>,
    /// Peak learning rate.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value_t = 2e-4,
        help_heading = "Training"
    )]
    pub(super) lr: f64,
    /// How many times as fast B is trained as A (LoRA+); 16 is usual, with a lower --lr.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value_t = 1.0,
        value_name = "RATIO",
        help_heading = "Training"
    )]
    pub(super) loraplus_lr_ratio: f64,
    /// How the learning rate falls after the warm-up.
    #[arg(long, default_value = "cosine", value_parser = decay(), help_heading = "Training")]
    pub(super) schedule: Decay,
    /// Warm-up: a number of steps (20), or a share of them (0.03).
    #[arg(long, default_value = "0.03", help_heading = "Training")]
    pub(super) warmup: Warmup,
    /// AdamW's decoupled weight decay.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value_t = 0.01,
        help_heading = "Training"
    )]
    pub(super) weight_decay: f64,
    /// Largest joint L2 norm of a step's gradients, a number above 0; off for no clipping.
    #[arg(
        long,
        allow_negative_numbers = true,
        default_value = "1",
        value_name = "NORM|off",
        help_heading = "Training"
    )]
    pub(super) clip: Clipping,
    /// Pack whole examples into batches of --batch times --seq tokens; none attends to another.
    #[arg(long, conflicts_with_all = ["bucket", "no_shuffle"], help_heading = "Training")]
    pub(super) pack: bool,
    /// Put examples of similar length into a batch.
    #[arg(long, conflicts_with = "no_shuffle", help_heading = "Training")]
    pub(super) bucket: bool,
    /// Keep the examples in the order of the files.
    #[arg(long, help_heading = "Training")]
    pub(super) no_shuffle: bool,
    /// Seed of the fresh adapter, the order of examples and dropout.
    #[arg(long, default_value_t = 0, help_heading = "Training")]
    pub(super) seed: u64,

    /// Steps between held-out scores [default: after each pass over the data].
    #[arg(
        long,
        value_name = "STEPS",
        value_parser = values::positive,
        help_heading = "Held-out scores"
    )]
    pub(super) eval_every: Option<usize>,
    /// Stop early after this many held-out scores without a better one.
    #[arg(
        long,
        value_name = "SCORES",
        value_parser = values::positive,
        help_heading = "Held-out scores"
    )]
    pub(super) patience: Option<usize>,
    /// The adapter to keep: the one with the best held-out score, or the last.
    #[arg(long, value_enum, default_value_t = KeepKind::Best, help_heading = "Held-out scores")]
    pub(super) keep: KeepKind,

    #[command(flatten)]
    pub(super) memory: MemoryArgs,
    /// Longest interval between two checkpoints: steps (50) or time (30s, 5m).
    #[arg(
        long,
        default_value = "5m",
        value_name = "INTERVAL",
        help_heading = "Machine"
    )]
    pub(super) checkpoint_every: Interval,
    /// Steps between printed lines. The folder's metrics.jsonl has every step.
    #[arg(
        long,
        default_value_t = 10,
        value_name = "STEPS",
        value_parser = values::positive,
        help_heading = "Machine"
    )]
    pub(super) log_every: usize,
    /// Also append the printed lines to this file.
    #[arg(long, value_name = "FILE", help_heading = "Machine")]
    pub(super) log_file: Option<PathBuf>,
}

/// Which adapter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeepKind {
    /// The adapter with the lowest held-out loss.
    Best,
    /// The adapter after the last step.
    Last,
}

/// The parser of a learning-rate decay, with the names that help pages and completions show.
fn decay() -> impl TypedValueParser<Value = Decay> {
    PossibleValuesParser::new([
        PossibleValue::new("cosine").help("Half a cosine wave, down to zero"),
        PossibleValue::new("linear").help("A straight line, down to zero"),
        PossibleValue::new("constant").help("The peak rate throughout"),
    ])
    .try_map(|name| name.parse())
}

/// How long the learning rate rises from zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Warmup {
    /// This many optimizer steps.
    Steps(usize),
    /// A share of all optimizer steps, from 0 to 1.
    Share(f64),
}

impl Warmup {
    /// What to say where the peak rate is not reached within a training of `steps` steps.
    pub(super) fn never_ends(self, steps: usize) -> Option<String> {
        let warmup = match self {
            Self::Steps(warmup) => warmup,
            Self::Share(share) => (share * steps as f64).ceil() as usize,
        };
        (warmup >= steps).then(|| {
            format!(
                "warning: the warm-up of {warmup} steps is no shorter than the training of {steps}: \
                 the learning rate never reaches --lr; use a smaller --warmup, or train longer"
            )
        })
    }
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

/// A malformed warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a number of steps (20), or a share of them from 0 to 1 (0.03)")]
pub(super) struct WarmupError;

/// Whether a step's gradients are clipped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Clipping {
    /// Gradients above this joint L2 norm are scaled down to it.
    At(ClipNorm),
    /// Gradients stay as they are.
    Off,
}

impl FromStr for Clipping {
    type Err = ClippingError;

    fn from_str(text: &str) -> Result<Self, ClippingError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        match text.parse() {
            // Scripts of earlier versions turn clipping off so.
            Ok(0.0) => Ok(Self::Off),
            Ok(norm) => ClipNorm::new(norm).map(Self::At).map_err(|_| ClippingError),
            Err(_) => Err(ClippingError),
        }
    }
}

/// Text that is neither a norm nor `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a finite number above 0, or off for no clipping")]
pub(super) struct ClippingError;

/// The training options, for examples of at most `seq` tokens.
///
/// # Errors
/// [`TrainOptionsError`] for an option out of range.
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
        Clipping::Off => None,
        Clipping::At(norm) => Some(norm),
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
            rate_ratio: RateRatio::new(args.loraplus_lr_ratio)?,
            decay: args.schedule,
            warmup: match args.warmup {
                Warmup::Steps(steps) => fedlora_train::Warmup::Steps(steps),
                Warmup::Share(share) => fedlora_train::Warmup::Share(WarmupShare::new(share)?),
            },
            span: None,
            weight_decay: WeightDecay::new(args.weight_decay)?,
            clip_norm,
            // Training alone has no rounds to hold together.
            proximal: Proximal::default(),
            seed: args.seed,
            checkpointing: args.memory.resolve(),
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

    #[test]
    fn a_warm_up_as_long_as_the_training_is_said() {
        for (warmup, steps) in [
            (Warmup::Steps(100), 5),
            (Warmup::Steps(3), 3),
            (Warmup::Share(1.0), 3),
            (Warmup::Share(0.03), 1),
        ] {
            assert!(warmup.never_ends(steps).is_some(), "{warmup:?} {steps}");
        }
        for (warmup, steps) in [
            (Warmup::Steps(2), 3),
            (Warmup::Steps(0), 1),
            (Warmup::Share(0.03), 2),
        ] {
            assert_eq!(warmup.never_ends(steps), None, "{warmup:?} {steps}");
        }
    }

    #[test]
    fn each_decay_has_a_name_here() {
        let command =
            clap::Command::new("train").arg(clap::Arg::new("schedule").value_parser(decay()));
        for decay in Decay::ALL {
            let matches = command
                .clone()
                .get_matches_from(["train", &decay.to_string()]);
            assert_eq!(matches.get_one("schedule"), Some(&decay));
        }
    }

    #[test]
    fn clipping_is_a_norm_or_off() {
        let at = |norm| {
            ClipNorm::new(norm)
                .map(Clipping::At)
                .map_err(|_| ClippingError)
        };
        assert_eq!("1".parse(), at(1.0));
        assert_eq!("0.5".parse(), at(0.5));
        for off in ["off", "0", "0.0"] {
            assert_eq!(off.parse(), Ok(Clipping::Off), "{off:?}");
        }
        for bad in ["", "-1", "NaN", "inf", "none"] {
            assert_eq!(bad.parse::<Clipping>(), Err(ClippingError), "{bad:?}");
        }
    }
}
