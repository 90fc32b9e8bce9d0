//! Why the store behind an operator's directory cannot be used.

use std::io;
#[cfg(feature = "database")]
use std::path::Path;
use std::path::PathBuf;

use crate::remedy::Remedy;

/// Why the store behind an operator's directory cannot be used. No address in it holds a password.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// This program was built without the feature `database`.
    #[error("the configuration names a store, and this program was built without `database`")]
    NotBuilt,
    /// Of database and objects only one is named.
    #[error("the store has no {missing}: a database and a place for objects belong together")]
    Incomplete {
        /// `database` or `blobs`.
        missing: &'static str,
    },
    /// No store is configured.
    #[error("{} has no store: its configuration names none", path.display())]
    None {
        /// The operator's directory.
        path: PathBuf,
    },
    /// An address that cannot be used.
    #[error("the store's address {shown}: {reason}")]
    Address {
        /// The address, without a password.
        shown: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database or the objects cannot be reached, or do not do what they are asked.
    #[error("{shown}: {reason}")]
    Away {
        /// The address, without a password.
        shown: String,
        /// What the system or the server says.
        reason: String,
    },
    /// The database refuses something, or holds something impossible.
    #[error("{shown}: {reason}")]
    Refused {
        /// The address, without a password.
        shown: String,
        /// What is wrong.
        reason: String,
    },
    /// Another aggregator serves the federation; changes are made there.
    #[error("the aggregator on {host} serves this federation: changes are made there")]
    Held {
        /// Its host's name.
        host: String,
    },
    /// Another aggregator has taken the federation over.
    #[error("the aggregator on {host} has taken this federation over")]
    Lost {
        /// Its host's name.
        host: String,
    },
    /// The database holds the directory of another federation.
    #[error("the database holds another federation, with the authority {found}")]
    OtherFederation {
        /// The fingerprint of its authority.
        found: String,
    },
    /// The database is empty, and the directory is not.
    #[error("the database is empty, and {} holds members or runs", path.display())]
    NotImported {
        /// The operator's directory.
        path: PathBuf,
    },
    /// The database holds the directory already.
    #[error("the database holds this federation already")]
    Imported,
    /// The database was set back: the directory has seen more of it.
    #[error(
        "the database is at change {found}, and {} has seen change {seen}: it was set back",
        path.display()
    )]
    SetBack {
        /// The operator's directory.
        path: PathBuf,
        /// The database's last change.
        found: i64,
        /// The last change that the directory has.
        seen: i64,
    },
    /// A file in the directory.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The file that cannot be read or written.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// What does the work has ended.
    #[error("the store's own threads have ended")]
    Ended,
}

impl StoreError {
    #[cfg(feature = "database")]
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }

    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NotBuilt => Some(Remedy::BuildWithDatabase),
            Self::Incomplete { .. } | Self::None { .. } => Some(Remedy::ConfigureStore),
            Self::NotImported { path } => Some(Remedy::ImportDirectory { path: path.clone() }),
            Self::SetBack { path, .. } => Some(Remedy::ChooseState { path: path.clone() }),
            _ => None,
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Away { .. } => io::ErrorKind::TimedOut,
            StoreError::Lost { .. } | StoreError::Held { .. } => io::ErrorKind::PermissionDenied,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
