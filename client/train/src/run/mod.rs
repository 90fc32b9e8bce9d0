//! A whole training: steps, held-out scores, early stopping, checkpoints, and its folder on disk.

pub(crate) mod checkpoint;
pub(crate) mod metrics;
pub(crate) mod output;
pub(crate) mod spec;
pub(crate) mod tensorboard;
mod training;

pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, Figures, Found, Scored};
pub use metrics::{EvaluationRecord, MetricsError, StepRecord};
pub use output::{OutputError, OutputFolder};
pub use spec::{Difference, RunSpec};
pub use training::{
    Event, Interval, Keep, Outcome, RunError, RunOptions, Setup, Summary, peak_memory, run,
};
