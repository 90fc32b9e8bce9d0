//! How to train, and what came of it.

use fedlora_adapter::Adapter;

use crate::step::optimizer::AdamWConfig;
use crate::step::schedule::{Decay, Schedule};
use fedlora_data::Batching;
use fedlora_model::Memory;

/// One training: a member's in one round, or a whole one on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Optimizer steps; not looked at where `epochs` are given.
    pub steps: usize,
    /// Passes over the data instead of steps; only with `batching`.
    pub epochs: Option<usize>,
    /// Examples computed at a time where `batching` does not say it.
    pub batch_size: usize,
    /// How each pass is cut into batches. Without, passes follow one another without a break,
    /// so that every batch is full.
    pub batching: Option<Batching>,
    /// Batches summed before an optimizer step.
    pub accumulation: usize,
    /// Tokens at which an example is cut.
    pub max_tokens: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// How it falls after the warm-up.
    pub decay: Decay,
    /// Steps of warm-up, counted over the whole schedule.
    pub warmup_steps: usize,
    /// The warm-up as a share of the schedule's steps, rounded up; 0 leaves it to `warmup_steps`.
    pub warmup_share: f64,
    /// Where this training begins in the schedule: a schedule can span rounds.
    pub first_step: usize,
    /// Steps of the whole schedule; 0 stands for `first_step + steps`.
    pub total_steps: usize,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Largest joint L2 norm of a step's gradients; 0 switches clipping off.
    pub clip_norm: f64,
    /// Seed of the order of examples and of dropout.
    pub seed: u64,
    /// Whether the examples are shuffled before each pass where `batching` does not say it.
    /// Without, they come as given.
    pub shuffle: bool,
    /// What the forward pass keeps.
    pub memory: Memory,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            steps: 100,
            epochs: None,
            batch_size: 8,
            batching: None,
            accumulation: 1,
            max_tokens: 1024,
            learning_rate: 1e-4,
            decay: Decay::Cosine,
            warmup_steps: 0,
            warmup_share: 0.0,
            first_step: 0,
            total_steps: 0,
            weight_decay: 0.01,
            clip_norm: 1.0,
            seed: 0,
            shuffle: true,
            memory: Memory::Normal,
        }
    }
}

impl TrainOptions {
    /// Checks the numbers that could make training meaningless or endless.
    ///
    /// # Errors
    /// [`TrainError::Option`] with the first that is out of range.
    pub fn check(&self) -> Result<(), TrainError> {
        let refuse = |option, got: f64, expected| {
            Err(TrainError::Option {
                option,
                got: got.to_string(),
                expected,
            })
        };
        if self.batch_size == 0 {
            return refuse("batch_size", 0.0, "at least 1");
        }
        if self.epochs == Some(0) {
            return refuse("epochs", 0.0, "at least 1");
        }
        if let (Some(epochs), None) = (self.epochs, self.batching) {
            return refuse(
                "epochs",
                epochs as f64,
                "a way to cut each pass into batches",
            );
        }
        if self.accumulation == 0 {
            return refuse("accumulation", 0.0, "at least 1");
        }
        if self.max_tokens < 2 {
            return refuse("max_tokens", self.max_tokens as f64, "at least 2");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse(
                "learning_rate",
                self.learning_rate,
                "a finite number above 0",
            );
        }
        if !(0.0..=1.0).contains(&self.warmup_share) {
            return refuse("warmup_share", self.warmup_share, "a number from 0 to 1");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse(
                "weight_decay",
                self.weight_decay,
                "a finite number, 0 or above",
            );
        }
        if !(self.clip_norm.is_finite() && self.clip_norm >= 0.0) {
            return refuse("clip_norm", self.clip_norm, "a finite number, 0 or above");
        }
        Ok(())
    }

    /// The schedule of a training of `steps` steps.
    pub(crate) fn schedule(&self, steps: usize) -> Schedule {
        let total = match self.total_steps {
            0 => self.first_step + steps,
            total => total,
        };
        Schedule {
            peak: self.learning_rate,
            warmup: if self.warmup_share > 0.0 {
                (self.warmup_share * total as f64).ceil() as usize
            } else {
                self.warmup_steps
            },
            total,
            decay: self.decay,
        }
    }

    pub(crate) fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            weight_decay: self.weight_decay,
            ..AdamWConfig::default()
        }
    }
}

/// Where a training stands, after each optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done in this training.
    pub step: usize,
    /// Steps asked for.
    pub steps: usize,
    /// The step's mean loss in nats a counted token.
    pub loss: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// The joint L2 norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens of the step's examples, after the cut.
    pub tokens: usize,
    /// Those of them whose prediction counts.
    pub counted_tokens: usize,
    /// Passes over the data done, the part of the one at hand included.
    pub epochs: f64,
    /// Whether the step ended a pass.
    pub pass_ended: bool,
}

/// A training's figures. Private to the member.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// Optimizer steps done.
    pub steps: usize,
    /// Mean of the steps' losses, weighted by tokens, in nats a counted token.
    pub mean_loss: f64,
    /// Each step's mean loss.
    pub losses: Vec<f64>,
    /// Counted tokens trained on, repetitions included.
    pub tokens: usize,
    /// Whether the caller stopped it early.
    pub stopped: bool,
}

/// An adapter after training.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The adapter; factors that were not selected are bit for bit those given.
    pub adapter: Adapter,
    /// The figures.
    pub report: TrainReport,
}

/// A held-out score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss in nats a counted token.
    pub loss: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Counted tokens.
    pub tokens: usize,
    /// The share of them that the model finds likeliest.
    pub token_accuracy: f64,
}

/// A training or evaluation that cannot be done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// An option out of range.
    #[error("training option '{option}' is {got}: expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: &'static str,
    },
    /// Nothing to learn from.
    #[error(
        "none of the {examples} examples counts a token within the first {max_tokens}: \
         give data with responses, or a larger token limit"
    )]
    NoTokens {
        /// Examples given.
        examples: usize,
        /// The cut.
        max_tokens: usize,
    },
    /// A token that the model does not have.
    #[error(
        "an example holds token {got}, the model's vocabulary has {vocab}: is the tokenizer this model's?"
    )]
    Token {
        /// The token's id.
        got: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// The adapter is for another model.
    #[error(transparent)]
    Lora(#[from] fedlora_model::LoraError),
    /// The state of another training, or none that this one could be in.
    #[error("the training cannot go on from this state: {what}")]
    State {
        /// What does not fit.
        what: &'static str,
    },
    /// A score that is no number.
    #[error("the loss is not a finite number: the base or the adapter is broken")]
    NotFinite,
    /// The loss or a value became NaN or infinite.
    #[error("training diverged at step {step}: a lower learning rate or smaller clip would help")]
    Diverged {
        /// The step, counted from 1.
        step: usize,
    },
}
