//! The running sums of one attempt at a round, one a group, and the files of the masked updates
//! that go into them. Step 8 of the round: memory does not grow with the members, only with the
//! groups.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use fedlora_adapter::Layout;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::AUXILIARY_LANES;
use fedlora_protocol::ids::{Attempt, GroupIndex, MemberIndex, RoundNumber};
use fedlora_protocol::secagg::RunningSums;
use fedlora_protocol::secagg::pack::{self, PackError};
use fedlora_protocol::wire::messages::{Open, VectorDigest};

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
    pub(super) fn check(&self, member: MemberIndex) -> io::Result<()> {
        let path = self.path(member);
        let ends = blocking::in_place(|| {
            let mut file = File::open(path)?;
            let bytes = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(bytes.saturating_sub(1)))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            io::Result::Ok((bytes, last[0]))
        });
        let (bytes, last) = ends?;
        self.sums.check_ends(bytes, last).map_err(io::Error::other)
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

    /// Adds the update in a file, which its member signed for with the digest `signed`, to the sum of
    /// the member's group, a piece of it in memory at a time.
    ///
    /// # Errors
    /// [`AddError`]; the sum is none then.
    pub(super) fn add(
        &mut self,
        path: &Path,
        group: GroupIndex,
        signed: Option<Digest>,
    ) -> Result<(), AddError> {
        blocking::in_place(|| {
            let mut file = File::open(path)?;
            let mut adding = self.sums.adding(group);
            let mut whole = VectorDigest::default();
            let mut piece = Vec::new();
            while let Some(bytes) = adding.next_piece() {
                piece.resize(bytes, 0);
                match file.read_exact(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(AddError::Other);
                    }
                    read => read?,
                }
                whole.update(&piece);
                adding.push(&piece)?;
            }
            if Some(whole.finish()) != signed || file.read(&mut [0])? != 0 {
                return Err(AddError::Other);
            }
            Ok(adding.finish()?)
        })
    }

    /// The sums, still masked.
    pub(super) fn into_sums(self) -> RunningSums {
        self.sums
    }
}

/// Why a stored update could not be added.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddError {
    /// Its file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is no packed vector of the round.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Another transfer has replaced it.
    #[error("it is not what its member signed for")]
    Other,
}
