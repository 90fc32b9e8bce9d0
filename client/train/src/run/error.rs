//! Why a run failed.

use fedlora_adapter::peft::PeftError;

use crate::remedy::Remedy;
use crate::run::checkpoint_error::CheckpointError;
use crate::run::metrics::MetricsError;
use crate::run::output_error::OutputError;
use crate::run::spec::{Difference, list_differences};
use crate::step::error::TrainError;

/// Why a run failed. Its last checkpoint stays usable.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A step or a held-out score is impossible.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint has another spec than `run.json`.
    #[error("the checkpoint is of another run:{}", list_differences(differences))]
    OtherCheckpoint {
        /// The entries that differ.
        differences: Vec<Difference>,
    },
    /// The output folder cannot be used.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Metrics cannot be written.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The adapter cannot be written.
    #[error(transparent)]
    Peft(#[from] PeftError),
}

impl RunError {
    /// What a caller can change so that the run continues.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Checkpoint(error) => error.remedy(),
            Self::OtherCheckpoint { .. } => Some(Remedy::Restart),
            Self::Output(error) => error.remedy(),
            Self::Train(_) | Self::Metrics(_) | Self::Peft(_) => None,
        }
    }
}
