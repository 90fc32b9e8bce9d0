//! The settings of a training. Each type holds only values that can be trained with, so that
//! nothing is left to check.

use std::fmt;
use std::num::NonZeroUsize;

use fedlora_data::Batching;
use fedlora_model::ActivationCheckpointing;

use crate::step::decay::Decay;
use crate::step::optimizer::AdamWConfig;
use crate::step::schedule::Schedule;

/// How a training goes: its batches, its optimizer and its learning rate.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// How the examples are cut into batches, and how long the training is.
    pub batches: Batches,
    /// Batches whose gradients are summed before an optimizer step. More of them give the
    /// result of a larger batch in the memory of a smaller one.
    pub accumulation: NonZeroUsize,
    /// Tokens at which an example is cut. The model's positions limit it further.
    pub max_tokens: MaxTokens,
    /// Learning rate at the end of the warm-up.
    pub learning_rate: LearningRate,
    /// How many times as fast B is trained as A.
    pub rate_ratio: RateRatio,
    /// Shape of the learning rate after the warm-up.
    pub decay: Decay,
    /// Length of the warm-up, in which the learning rate rises linearly.
    pub warmup: Warmup,
    /// The part of a longer learning rate schedule that this training covers. `None` lets the
    /// schedule begin and end with the training.
    pub span: Option<Span>,
    /// AdamW's decoupled weight decay.
    pub weight_decay: WeightDecay,
    /// Largest joint L2 norm of a step's gradients; larger ones are scaled down to it. `None`
    /// leaves gradients as they are.
    pub clip_norm: Option<ClipNorm>,
    /// How strongly the training is held at the adapter that it is given. The proximal term's
    /// gradient is a part of what is clipped; the losses that are told are without the term.
    pub proximal: Proximal,
    /// Seed of the order of examples and of dropout.
    pub seed: u64,
    /// What the forward pass keeps for the backward pass.
    /// [`ActivationCheckpointing::PerBlock`] takes less memory and about a third more computation.
    pub checkpointing: ActivationCheckpointing,
}

impl Default for TrainOptions {
    /// A hundred steps of eight examples of at most 1024 tokens, at a peak rate of 1e-4 with
    /// cosine decay and no warm-up, PyTorch's weight decay of 0.01, and gradients clipped at 1.
    fn default() -> Self {
        Self {
            batches: Batches::Continuous {
                batch_size: const { NonZeroUsize::new(8).unwrap() },
                shuffle: true,
                steps: const { NonZeroUsize::new(100).unwrap() },
            },
            accumulation: NonZeroUsize::MIN,
            max_tokens: MaxTokens(1024),
            learning_rate: LearningRate(1e-4),
            rate_ratio: RateRatio::default(),
            decay: Decay::Cosine,
            warmup: Warmup::Steps(0),
            span: None,
            weight_decay: WeightDecay(0.01),
            clip_norm: Some(ClipNorm(1.0)),
            proximal: Proximal::default(),
            seed: 0,
            checkpointing: ActivationCheckpointing::Off,
        }
    }
}

impl TrainOptions {
    /// The step of the schedule with which this training begins, from 0.
    pub(crate) fn first_step(&self) -> usize {
        self.span.map_or(0, |span| span.first)
    }

    /// The learning rate schedule of a training of `steps` steps.
    pub(crate) fn schedule(&self, steps: usize) -> Schedule {
        let total = self.span.map_or(steps, |span| span.total.get());
        Schedule {
            peak: self.learning_rate.get(),
            warmup: match self.warmup {
                Warmup::Steps(steps) => steps,
                Warmup::Share(share) => (share.get() * total as f64).ceil() as usize,
            },
            total,
            decay: self.decay,
        }
    }

    pub(crate) fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            weight_decay: self.weight_decay.get(),
            ..AdamWConfig::default()
        }
    }
}

/// How examples are cut into batches, and how many batches there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batches {
    /// One epoch follows another without a break, so that every batch is full. Only steps can
    /// end it.
    Continuous {
        /// Examples of a batch.
        batch_size: NonZeroUsize,
        /// Whether each epoch has a new random order; otherwise examples keep their order.
        shuffle: bool,
        /// Length of the training in optimizer steps.
        steps: NonZeroUsize,
    },
    /// Each epoch is cut into batches by itself; its last batch may be smaller.
    Planned {
        /// How an epoch is cut.
        batching: Batching,
        /// Length of the training.
        length: Length,
    },
}

impl Batches {
    /// The same batches, for a training of `steps` optimizer steps.
    pub fn with_steps(self, steps: NonZeroUsize) -> Self {
        match self {
            Self::Continuous {
                batch_size,
                shuffle,
                ..
            } => Self::Continuous {
                batch_size,
                shuffle,
                steps,
            },
            Self::Planned { batching, .. } => Self::Planned {
                batching,
                length: Length::Steps(steps),
            },
        }
    }
}

/// The length of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// A number of optimizer steps.
    Steps(NonZeroUsize),
    /// A number of epochs: passes over all examples.
    Epochs(NonZeroUsize),
}

/// The length of the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Warmup {
    /// A number of optimizer steps of the whole schedule; 0 begins at the peak rate.
    Steps(usize),
    /// A share of the schedule's steps, rounded up.
    Share(WarmupShare),
}

/// Where a training lies in a longer learning rate schedule, such as one over several trainings
/// that each continue from the adapter of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Step of the schedule that the training begins with, from 0. At and after `total`, a
    /// decaying rate is zero.
    pub first: usize,
    /// Steps of the whole schedule, warm-up included.
    pub total: NonZeroUsize,
}

/// Tokens at which an example is cut: at least 2, one to predict and one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxTokens(usize);

impl MaxTokens {
    /// A limit of `tokens` tokens.
    ///
    /// # Errors
    /// [`TrainOptionsError`] below 2.
    pub fn new(tokens: usize) -> Result<Self, TrainOptionsError> {
        if tokens < 2 {
            return refuse(TrainOption::MaxTokens, tokens, "at least 2");
        }
        Ok(Self(tokens))
    }

    /// The limit in tokens.
    pub fn get(self) -> usize {
        self.0
    }
}

/// A learning rate: finite and above 0. Adapters are usually trained at 1e-5 to 1e-3.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct LearningRate(f64);

impl LearningRate {
    /// The rate `rate`.
    ///
    /// # Errors
    /// [`TrainOptionsError`] for 0, a negative or an infinite number, or NaN.
    pub fn new(rate: f64) -> Result<Self, TrainOptionsError> {
        if !(rate.is_finite() && rate > 0.0) {
            let expected = "a finite number above 0";
            return refuse(TrainOption::LearningRate, rate, expected);
        }
        Ok(Self(rate))
    }

    /// The rate as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// LoRA+'s ratio of the learning rate of B to that of A (Hayou et al., arXiv 2402.12354): finite and
/// above 0. By default 1, as in plain LoRA; there 16 is proposed, with a lower rate of A. Cores, and the
/// weights of an adapter beside another one, have the rate of A.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct RateRatio(f64);

impl RateRatio {
    /// The ratio `ratio`.
    ///
    /// # Errors
    /// [`TrainOptionsError`] for 0, a negative or an infinite number, or NaN.
    pub fn new(ratio: f64) -> Result<Self, TrainOptionsError> {
        if !(ratio.is_finite() && ratio > 0.0) {
            return refuse(TrainOption::RateRatio, ratio, "a finite number above 0");
        }
        Ok(Self(ratio))
    }

    /// The ratio as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for RateRatio {
    fn default() -> Self {
        Self(1.0)
    }
}

/// A share of the schedule's steps, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct WarmupShare(f64);

impl WarmupShare {
    /// The share `share`; 0.03 is a common one.
    ///
    /// # Errors
    /// [`TrainOptionsError`] outside 0 to 1, or NaN.
    pub fn new(share: f64) -> Result<Self, TrainOptionsError> {
        if !(0.0..=1.0).contains(&share) {
            return refuse(TrainOption::WarmupShare, share, "a number from 0 to 1");
        }
        Ok(Self(share))
    }

    /// The share as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// AdamW's decoupled weight decay: finite, 0 or above. 0 does not decay.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct WeightDecay(f64);

impl WeightDecay {
    /// The decay `decay`: each step multiplies parameters by `1 - rate * decay`.
    ///
    /// # Errors
    /// [`TrainOptionsError`] for a negative or an infinite number, or NaN.
    pub fn new(decay: f64) -> Result<Self, TrainOptionsError> {
        if !(decay.is_finite() && decay >= 0.0) {
            let expected = "a finite number, 0 or above";
            return refuse(TrainOption::WeightDecay, decay, expected);
        }
        Ok(Self(decay))
    }

    /// The decay as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The largest joint L2 norm of a step's gradients: finite and above 0.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ClipNorm(f64);

impl ClipNorm {
    /// The norm `norm`.
    ///
    /// # Errors
    /// [`TrainOptionsError`] for 0, a negative or an infinite number, or NaN.
    pub fn new(norm: f64) -> Result<Self, TrainOptionsError> {
        if !(norm.is_finite() && norm > 0.0) {
            let expected = "a finite number above 0";
            return refuse(TrainOption::ClipNorm, norm, expected);
        }
        Ok(Self(norm))
    }

    /// The norm as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// The weight mu of FedProx's proximal term, `mu / 2 * |w - w0|^2`: finite, 0 or above. By default
/// 0, without the term. Where w0 moves from round to round, as in a federation, it keeps members'
/// trainings from drifting apart; 0.001 to 1 are usual.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Proximal(f64);

impl Proximal {
    /// The weight `mu`.
    ///
    /// # Errors
    /// [`TrainOptionsError`] for a negative or an infinite number, or NaN.
    pub fn new(mu: f64) -> Result<Self, TrainOptionsError> {
        if !(mu.is_finite() && mu >= 0.0) {
            return refuse(TrainOption::Proximal, mu, "a finite number, 0 or above");
        }
        Ok(Self(mu))
    }

    /// The weight as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

/// A setting of a training, by which a caller finds what its own user wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainOption {
    /// [`Length::Steps`], or the steps of [`Batches::Continuous`].
    Steps,
    /// [`Length::Epochs`].
    Epochs,
    /// Examples of a batch.
    BatchSize,
    /// [`TrainOptions::accumulation`].
    Accumulation,
    /// [`MaxTokens`].
    MaxTokens,
    /// [`LearningRate`].
    LearningRate,
    /// [`RateRatio`].
    RateRatio,
    /// [`WarmupShare`].
    WarmupShare,
    /// [`Span::total`].
    ScheduleSteps,
    /// [`WeightDecay`].
    WeightDecay,
    /// [`ClipNorm`].
    ClipNorm,
    /// [`Proximal`].
    Proximal,
}

impl TrainOption {
    /// `value` as a count of this setting.
    ///
    /// # Errors
    /// [`TrainOptionsError`] for 0.
    pub fn count(self, value: usize) -> Result<NonZeroUsize, TrainOptionsError> {
        NonZeroUsize::new(value).map_or_else(|| refuse(self, value, "at least 1"), Ok)
    }
}

impl fmt::Display for TrainOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steps => "steps",
            Self::Epochs => "epochs",
            Self::BatchSize => "batch_size",
            Self::Accumulation => "accumulation",
            Self::MaxTokens => "max_tokens",
            Self::LearningRate => "learning_rate",
            Self::RateRatio => "loraplus_lr_ratio",
            Self::WarmupShare => "warmup_share",
            Self::ScheduleSteps => "schedule_steps",
            Self::WeightDecay => "weight_decay",
            Self::ClipNorm => "clip_norm",
            Self::Proximal => "proximal",
        })
    }
}

/// A value that no training can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("training option '{option}' is {got}: expected {expected}")]
pub struct TrainOptionsError {
    /// The setting.
    pub option: TrainOption,
    /// The value given, as text.
    pub got: String,
    /// The values that are accepted, in words.
    pub expected: &'static str,
}

fn refuse<T>(
    option: TrainOption,
    got: impl fmt::Display,
    expected: &'static str,
) -> Result<T, TrainOptionsError> {
    Err(TrainOptionsError {
        option,
        got: got.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_range_cannot_be_made() {
        let wrong = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0];
        for bad in wrong {
            assert!(LearningRate::new(bad).is_err(), "{bad}");
            assert!(WarmupShare::new(bad).is_err(), "{bad}");
            assert!(WeightDecay::new(bad).is_err(), "{bad}");
            assert!(ClipNorm::new(bad).is_err(), "{bad}");
            assert!(Proximal::new(bad).is_err(), "{bad}");
        }
        assert!(LearningRate::new(0.0).is_err());
        assert!(ClipNorm::new(0.0).is_err());
        assert!(WarmupShare::new(1.5).is_err());
        assert!(MaxTokens::new(1).is_err());
        for option in [
            TrainOption::Steps,
            TrainOption::Epochs,
            TrainOption::BatchSize,
            TrainOption::Accumulation,
        ] {
            let error = option.count(0).unwrap_err();
            assert_eq!(error.option, option);
        }
        assert_eq!(
            LearningRate::new(-1.0).unwrap_err().to_string(),
            "training option 'learning_rate' is -1: expected a finite number above 0"
        );
    }

    #[test]
    fn values_at_the_ends_of_their_ranges_can_be_made() {
        assert_eq!(MaxTokens::new(2).unwrap().get(), 2);
        assert_eq!(WarmupShare::new(0.0).unwrap().get(), 0.0);
        assert_eq!(WarmupShare::new(1.0).unwrap().get(), 1.0);
        assert_eq!(WeightDecay::new(0.0).unwrap().get(), 0.0);
        assert_eq!(Proximal::new(0.0).unwrap(), Proximal::default());
        assert_eq!(LearningRate::new(1e30).unwrap().get(), 1e30);
        assert_eq!(TrainOption::Steps.count(1).unwrap().get(), 1);
    }

    #[test]
    fn a_schedule_covers_the_training_or_the_span_that_it_lies_in() {
        let alone = TrainOptions {
            warmup: Warmup::Share(WarmupShare::new(0.03).unwrap()),
            ..TrainOptions::default()
        };
        assert_eq!(alone.schedule(50).total, 50);
        // Rounded up.
        assert_eq!(alone.schedule(50).warmup, 2);
        let spanned = TrainOptions {
            span: Some(Span {
                first: 10,
                total: NonZeroUsize::new(200).unwrap(),
            }),
            ..alone
        };
        assert_eq!(spanned.first_step(), 10);
        assert_eq!(spanned.schedule(50).total, 200);
        assert_eq!(spanned.schedule(50).warmup, 6);
    }
}
