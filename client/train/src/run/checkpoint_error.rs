//! Why a checkpoint cannot be written or read.

use std::io;
use std::path::PathBuf;

use fedlora_adapter::tensors::TensorFileError;

use crate::remedy::Remedy;

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be written.
    #[error(
        "the checkpoint of step {step} cannot be written to {}: {source}; those before it are \
         whole",
        path.display()
    )]
    Write {
        /// The file's path.
        path: PathBuf,
        /// Optimizer steps done.
        step: usize,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The folder cannot be read or removed.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder's path.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] TensorFileError),
    /// The file is not a whole checkpoint of this layout.
    #[error("the checkpoint {} cannot be used: {what}", path.display())]
    Damaged {
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it, as a clause.
        what: &'static str,
    },
    /// There are checkpoints, and none can be read.
    #[error("no checkpoint can be used; the newest: {newest}")]
    AllDamaged {
        /// The error of the newest one.
        newest: Box<CheckpointError>,
    },
}

impl CheckpointError {
    /// What a caller can change so that the run continues.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Write { .. } => Some(Remedy::Resume),
            Self::AllDamaged { .. } => Some(Remedy::Restart),
            Self::Folder { .. } | Self::Read(_) | Self::Damaged { .. } => None,
        }
    }
}
