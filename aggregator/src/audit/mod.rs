//! A round that anyone can recompute. Where the operator asks for it, the aggregator keeps what a
//! round was made of: the events with every member's signature, and the masked updates that are in
//! the sum. A replay judges each event again, adds the updates, takes the masks off, and compares
//! the outcome with the signed result, bit for bit. It needs no key.
//!
//! | module | owns |
//! |---|---|
//! | `record` | what is kept, written while the run goes on |
//! | `folder` | where it lies |
//! | `events` | the file of events |
//! | `run` | plan, roster, first adapter and chain of results, read back and checked |
//! | `replay` | the round once more |
//! | `uploads` | the running sum of the kept updates |
//! | `report` | what a replay found |
//! | `verdict` | whether evidence against a member proves something |
//! | `verify` | a run's signed results: signatures, chain, adapters; every run can be verified |
//! | `take_up` | a run that is not over, and the attempt that it was at |

mod events;
mod folder;
mod record;
mod replay;
mod report;
mod run;
mod take_up;
mod uploads;
mod verdict;
mod verify;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::AdapterError;
use fedlora_adapter::peft::PeftError;
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::PlanError;
use fedlora_protocol::receipt::ReceiptError;
use serde::de::DeserializeOwned;

use crate::optimizer::StateError;
use crate::remedy::Remedy;
use crate::run_directory::RunSearchError;

pub use events::EventFileError;
pub use folder::RecordFolder;
pub use record::{AttemptRecord, KeptOpening, KeptPlan, RecordError, keep_run};
pub use replay::replay;
pub use report::{Comparison, Finding, ReplayReport};
pub(crate) use run::KeptRun;
pub(crate) use take_up::{
    BegunAttempt, OpenRun, begun_attempt, close, is_genuine, open_run, open_runs,
};
pub use verdict::{EvidenceVerdict, check_evidence};
pub use verify::{VerifiedReport, verified, verify};

/// Why a round cannot be replayed, or evidence not be checked.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No run is found.
    #[error(transparent)]
    Run(#[from] RunSearchError),
    /// A file that a replay needs was not kept.
    #[error("{} is not there", path.display())]
    NotKept {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that cannot be read.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that is no such document.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file that is no such document.
        path: PathBuf,
        /// Where and why it does not parse.
        source: serde_json::Error,
    },
    /// A plan that the aggregator did not sign, or an impossible one.
    #[error("the kept plan: {0}")]
    Plan(#[from] PlanError),
    /// A roster of another size than the plan says.
    #[error("the kept roster has {found} members, the plan {planned}")]
    Members {
        /// Members on the roster.
        found: usize,
        /// Members of the plan.
        planned: usize,
    },
    /// A file of events that cannot be read.
    #[error("{}: {reason}", path.display())]
    Events {
        /// The file that cannot be read.
        path: PathBuf,
        /// What is wrong with it.
        reason: EventFileError,
    },
    /// A record that cannot be continued.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An event in the record that the coordinator does not make of its message.
    #[error("event {number} of the attempt that the run was at is not genuine")]
    Event {
        /// Its number, from 1.
        number: usize,
    },
    /// An adapter that is not the one that its round's result names.
    #[error("{} is not the adapter that the round's result names", path.display())]
    OtherAdapter {
        /// The adapter's folder.
        path: PathBuf,
    },
    /// Results that are not the run's, or do not follow from each other.
    #[error("{}: {error}", path.display())]
    Receipt {
        /// The file of results.
        path: PathBuf,
        /// The place, and what is wrong there.
        error: ReceiptError,
    },
    /// A round without a result.
    #[error("the run has no result of round {round}")]
    NoResult {
        /// The round.
        round: RoundNumber,
    },
    /// An adapter that cannot be read.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// A state of the server's optimizer that cannot be taken.
    #[error(transparent)]
    State(#[from] StateError),
    /// A first adapter that the plan does not give.
    #[error("the kept first adapter: {0}")]
    Adapter(#[from] AdapterError),
}

impl AuditError {
    /// Whether it may pass by itself: a disk that is full, or does not answer, is no damage. A file that
    /// this process may not read, or that is a folder, stays so.
    pub(crate) fn may_pass(&self) -> bool {
        let (Self::Io { source, .. } | Self::Record(RecordError::Io { source, .. })) = self else {
            return false;
        };
        !matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
        )
    }

    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Run(RunSearchError::Several { .. }) => Some(Remedy::ChooseRun),
            // Every run has it that began.
            Self::NotKept { path } if path.ends_with("run.json") => None,
            Self::NotKept { .. } => Some(Remedy::KeepForAudit),
            Self::State(error) => error.remedy(),
            _ => None,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AuditError> {
    fs::read(path).map_err(|source| unreadable(path, source))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, AuditError> {
    serde_json::from_slice(&read(path)?).map_err(|source| AuditError::Json {
        path: path.to_owned(),
        source,
    })
}

fn unreadable(path: &Path, source: io::Error) -> AuditError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => AuditError::NotKept { path },
        _ => AuditError::Io { path, source },
    }
}
