//! The settings of a run.

use crate::run::early_stopping::Patience;
use crate::run::interval::{EvaluationInterval, Interval};
use crate::step::options::TrainOptions;

/// How a run goes: its steps, and what happens between them.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// How the steps go.
    pub train: TrainOptions,
    /// When held-out examples are scored.
    pub evaluate_every: EvaluationInterval,
    /// When held-out scores that do not improve end the run; `None` takes all steps.
    pub patience: Option<Patience>,
    /// Which adapter is kept.
    pub keep: Keep,
    /// The longest stretch between two checkpoints.
    pub checkpoint_every: Interval,
}

/// Which adapter a run with held-out scores keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// The one with the lowest held-out loss; after the last step where nothing is held out.
    #[default]
    Best,
    /// The one after the last step.
    Last,
}
