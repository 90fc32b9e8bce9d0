//! What `fedlora-aggregator status` prints: written by the serving process, read by anyone
//! who may read the operator's directory.

use std::fs;
use std::io;
use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::ids::MemberName;
use serde::{Deserialize, Serialize};

/// The state of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this document's form.
    pub schema_version: u32,
    /// The federation.
    pub federation: String,
    /// The run's id.
    pub run: String,
    /// `gathering`, `running`, `finished` or `failed`.
    pub state: RunState,
    /// Why it failed, where it did.
    pub failure: Option<String>,
    /// Rounds that the plan asks for.
    pub rounds_planned: u32,
    /// Rounds that are done.
    pub rounds_done: u32,
    /// The phase of the round at hand.
    pub phase: Option<String>,
    /// The run's members, or those that are ready.
    pub members: Vec<MemberStatus>,
    /// The digest of the newest global adapter.
    pub adapter: Option<String>,
    /// When this was written.
    pub updated: Timestamp,
    /// The serving process.
    pub pid: u32,
}

/// One member, as the aggregator sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: MemberName,
    /// Whether it is connected.
    pub connected: bool,
    /// Rounds whose sum it is in.
    pub rounds: u32,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Waiting for members.
    Gathering,
    /// In its rounds.
    Running,
    /// All rounds done.
    Finished,
    /// Ended early.
    Failed,
}

impl Status {
    /// Writes the status whole.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a status has text keys");
        write_atomic(path, &text, Access::Everyone)
    }

    /// Reads what was written last; nothing where no run was served yet.
    ///
    /// # Errors
    /// The system's, or a file that is no status.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
