//! The running sums of one attempt at a round, one a group, and the files of the masked updates
//! that go into them. Step 8 of the round: memory does not grow with the members, only with the
//! groups.

use std::io;
use std::path::PathBuf;

use fedlora_adapter::Layout;
use fedlora_protocol::fixed::AUXILIARY_LANES;
use fedlora_protocol::ids::{Attempt, GroupIndex, MemberIndex, RoundNumber};
use fedlora_protocol::secagg::{RunningSums, pack};
use fedlora_protocol::wire::messages::Open;

use crate::audit::RecordError;
use crate::blocking;
use crate::run_directory::RunDirectory;

/// The masked updates of one attempt.
#[derive(Debug)]
pub(super) struct Tally {
    directory: RunDirectory,
    round: RoundNumber,
    attempt: Attempt,
    update_bytes: u64,
    sums: RunningSums,
}

impl Tally {
    /// An empty sum for each of `groups` groups over `part`, the layout that the round of `open`
    /// trains.
    pub(super) fn new(directory: &RunDirectory, open: &Open, part: &Layout, groups: u16) -> Self {
        let lanes = part.len() + AUXILIARY_LANES;
        Self {
            directory: directory.clone(),
            round: open.round,
            attempt: open.attempt,
            update_bytes: pack::packed_len(open.bits, lanes) as u64,
            sums: RunningSums::new(open.bits, lanes, groups),
        }
    }

    /// The length in bytes of every masked update of this round.
    pub(super) fn update_bytes(&self) -> u64 {
        self.update_bytes
    }

    /// The file of a member's masked update.
    pub(super) fn path(&self, member: MemberIndex) -> PathBuf {
        self.directory.uploads().join(format!(
            "round-{:04}-attempt-{}-member-{}.masked",
            self.round.0, self.attempt.0, member.0
        ))
    }

    /// Checks that a stored update can be added.
    ///
    /// # Errors
    /// It cannot be read, or is not a packed vector of this round.
    pub(super) async fn check(&self, member: MemberIndex) -> io::Result<()> {
        let packed = tokio::fs::read(self.path(member)).await?;
        blocking::in_place(|| self.sums.check(&packed)).map_err(io::Error::other)
    }

    /// Keeps a stored update from now on.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub(super) fn keep(&self, member: MemberIndex) -> Result<(), RecordError> {
        let path = self.path(member);
        let kept = blocking::in_place(|| self.directory.store().adopt(&path));
        kept.map_err(|source| RecordError::Io { path, source })
    }

    /// Adds a packed update to the sum of its member's group.
    ///
    /// # Errors
    /// It is no packed vector of this round; the sum is as it was.
    pub(super) fn add(&mut self, packed: &[u8], group: GroupIndex) -> io::Result<()> {
        blocking::in_place(|| self.sums.add(group, packed)).map_err(io::Error::other)
    }

    /// The sums, still masked.
    pub(super) fn into_sums(self) -> RunningSums {
        self.sums
    }
}
