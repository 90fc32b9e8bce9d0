//! What a run tells its caller while it goes.

use crate::run::checkpoint_error::CheckpointError;
use crate::run::figures::Scored;
use crate::run::metrics::{EvaluationRecord, StepRecord};

/// What happens in a run, in the order in which it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A new run begins with its first step.
    Begun {
        /// Optimizer steps of the whole run.
        steps: usize,
    },
    /// An unfinished run resumes.
    Resumed {
        /// Optimizer steps done.
        step: usize,
        /// Optimizer steps of the whole run.
        steps: usize,
    },
    /// A checkpoint cannot be used; an older one is tried.
    Damaged(&'a CheckpointError),
    /// An optimizer step is done.
    Step {
        /// The step's figures.
        record: StepRecord,
        /// Optimizer steps of the whole run.
        steps: usize,
    },
    /// Scoring of the held-out examples begins.
    Evaluating {
        /// Optimizer steps done.
        step: usize,
    },
    /// The held-out examples are scored.
    Evaluated(EvaluationRecord),
    /// The run ends before its last step: the held-out loss stopped improving.
    StoppedEarly {
        /// Optimizer steps done.
        step: usize,
        /// The best held-out score.
        best: Scored,
    },
    /// A checkpoint is on the disk.
    Saved {
        /// Optimizer steps done.
        step: usize,
    },
}
