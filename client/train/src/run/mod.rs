//! A whole run: steps, held-out scores, early stopping, checkpoints, and its folder on disk.

pub(crate) mod checkpoint;
pub(crate) mod checkpoint_error;
pub(crate) mod early_stopping;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod figures;
pub(crate) mod interval;
pub(crate) mod metrics;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod output_error;
pub(crate) mod resume_point;
pub(crate) mod spec;
pub(crate) mod summary;
pub(crate) mod tensorboard;
mod training;

pub use checkpoint::{Checkpoint, Checkpoints, FoundCheckpoint};
pub use checkpoint_error::CheckpointError;
pub use early_stopping::Patience;
pub use error::RunError;
pub use event::Event;
pub use figures::{Figures, Scored};
pub use interval::{EvaluationInterval, Interval, IntervalError};
pub use metrics::{EvaluationRecord, MetricsError, StepRecord};
pub use options::{Keep, RunOptions};
pub use output::OutputFolder;
pub use output_error::OutputError;
pub use spec::{Difference, RunSpec};
pub use summary::{RunOutcome, Summary, peak_memory};
pub use training::{Setup, run};
