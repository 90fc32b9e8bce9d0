//! Why a folder cannot hold a run.

use std::io;
use std::path::PathBuf;

use fedlora_adapter::tensors::TensorFileError;

use crate::remedy::Remedy;
use crate::run::checkpoint_error::CheckpointError;
use crate::run::spec::{Difference, list_differences};

/// A folder that a run cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path names something that is not a folder.
    #[error("{} is not a folder", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder holds files that no run wrote.
    #[error(
        "{} holds '{file}' and no run",
        path.display()
    )]
    Foreign {
        /// The folder's path.
        path: PathBuf,
        /// The name of one of them, cut at 80 characters.
        file: String,
    },
    /// The folder's `run.json` is malformed or of another version.
    #[error("{} was not written by this version of fedlora", path.display())]
    Unknown {
        /// The path of `run.json`.
        path: PathBuf,
    },
    /// Another process writes to the folder.
    #[error("another run is writing to {}", path.display())]
    Busy {
        /// The folder's path.
        path: PathBuf,
    },
    /// The folder holds a finished run.
    #[error(
        "{} holds a run that is done{}",
        path.display(), list_differences(differences)
    )]
    Finished {
        /// The folder's path.
        path: PathBuf,
        /// What differs from the run that was to begin.
        differences: Vec<Difference>,
    },
    /// The folder holds an unfinished run of another spec, with checkpoints.
    #[error(
        "{} holds an unfinished run with other settings:{}",
        path.display(), list_differences(differences)
    )]
    Other {
        /// The folder's path.
        path: PathBuf,
        /// What differs from the run that was to begin.
        differences: Vec<Difference>,
    },
    /// A file or folder cannot be read, written or removed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The checkpoints cannot be listed or removed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// `run.json` cannot be read or written.
    #[error(transparent)]
    File(#[from] TensorFileError),
}

impl OutputError {
    /// What a caller can change so that a run can be written.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NoFolder { .. } | Self::Foreign { .. } | Self::Unknown { .. } => {
                Some(Remedy::OtherOutputFolder)
            }
            Self::Finished { .. } => Some(Remedy::OtherOutputFolderOrRestart),
            Self::Other { .. } => Some(Remedy::SameSettingsOrRestart),
            Self::Checkpoint(error) => error.remedy(),
            Self::Busy { .. } | Self::Io { .. } | Self::File(_) => None,
        }
    }
}
