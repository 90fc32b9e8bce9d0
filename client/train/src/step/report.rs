//! What a training tells while it goes and when it is over.

use fedlora_adapter::Adapter;

/// State of a training after an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Optimizer steps done in this training.
    pub step: usize,
    /// Optimizer steps of the whole training.
    pub steps: usize,
    /// The step's mean loss in nats a target token.
    pub loss: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// The joint L2 norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens of the step's examples, after the cut.
    pub tokens: usize,
    /// Target tokens among them: those that the loss mask selects.
    pub target_tokens: usize,
    /// Epochs done; the fraction is the done part of the current one.
    pub epochs: f64,
    /// Whether the step ended an epoch.
    pub pass_ended: bool,
}

/// Figures of a whole training. They are derived from the examples and as private as those.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    /// Optimizer steps done.
    pub steps: usize,
    /// Mean loss of all target tokens, in nats.
    pub mean_loss: f64,
    /// Each step's mean loss in nats a target token.
    pub losses: Vec<f64>,
    /// Target tokens trained on, repetitions included.
    pub tokens: usize,
    /// Whether the caller stopped it before its last step.
    pub stopped: bool,
}

/// An adapter after training.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The adapter; factors that were not selected have their bits unchanged.
    pub adapter: Adapter,
    /// Figures of the training.
    pub report: TrainReport,
}
