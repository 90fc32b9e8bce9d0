//! Where the record of a run lies.
//!
//! ```text
//! runs/ID/audit/plan.json                      the aggregator's public key and its signed plan
//! runs/ID/audit/first-adapter/                 the adapter that the first round starts from
//! runs/ID/audit/round-0001-attempt-1/open.json M0, with what else the attempt began with
//! .../events.bin                               what the coordinator took, event by event
//! .../member-N.masked                          the masked updates in the sum
//! ```

use std::path::PathBuf;

use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber};

use crate::run_directory::RunDirectory;

pub(super) fn plan(directory: &RunDirectory) -> PathBuf {
    directory.audit().join("plan.json")
}

pub(super) fn first_adapter(directory: &RunDirectory) -> PathBuf {
    directory.audit().join("first-adapter")
}

/// The folder of one attempt at a round.
#[derive(Debug, Clone)]
pub(super) struct AttemptFolder(PathBuf);

impl AttemptFolder {
    pub(super) fn new(directory: &RunDirectory, round: RoundNumber, attempt: Attempt) -> Self {
        let name = format!("round-{:04}-attempt-{}", round.0, attempt.0);
        Self(directory.audit().join(name))
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.0
    }

    pub(super) fn open(&self) -> PathBuf {
        self.0.join("open.json")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.0.join("events.bin")
    }

    pub(super) fn upload(&self, member: MemberIndex) -> PathBuf {
        self.0.join(format!("member-{}.masked", member.0))
    }
}
