//! Where the record of a run lies: in `audit` for good, where the operator asks for that, otherwise
//! in `journal` as long as the run is not over.
//!
//! ```text
//! runs/ID/audit/plan.json                      the aggregator's public key and its signed plan
//! runs/ID/audit/first-adapter/                 the adapter that the first round starts from
//! runs/ID/audit/open                           there while the run is not over
//! runs/ID/audit/round-0001-attempt-1/open.json M0, with what else the attempt began with
//! .../events.bin                               what the coordinator took, event by event
//! .../member-N.masked                          the masked updates in the sum
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::files::Access;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber};
use tracing::warn;

use crate::run_directory::RunDirectory;
use crate::store::Store;

/// The folder of a run's record.
#[derive(Debug, Clone)]
pub struct RecordFolder {
    root: PathBuf,
    store: Store,
    kept: bool,
}

impl RecordFolder {
    /// Of a run whose record is kept for an audit, or only until the run is over.
    pub fn new(directory: &RunDirectory, kept: bool) -> Self {
        let root = match kept {
            true => directory.audit(),
            false => directory.journal(),
        };
        Self {
            root,
            store: directory.store().clone(),
            kept,
        }
    }

    /// That of a run that is not over, if it is one.
    pub fn of_open_run(directory: &RunDirectory) -> Option<Self> {
        let both = [true, false].map(|kept| Self::new(directory, kept));
        both.into_iter().find(|one| one.marker().exists())
    }

    /// Removes a record that is not kept and whose run is over: one that broke off while it was being
    /// removed.
    pub(super) fn remove_leftover(directory: &RunDirectory) {
        let path = directory.journal();
        if path.exists()
            && let Err(error) = directory.store().remove_folder(&path)
        {
            warn!(path = %path.display(), %error, "the record of a run that is over stays");
        }
    }

    /// Whether the record outlives the run.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Notes that the run is not over; the record of what it is about is there.
    pub(super) fn begin(&self) -> io::Result<()> {
        self.store.write(&self.marker(), b"", Access::Everyone)
    }

    /// Notes that the run is over: a record that is not kept goes.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn end(&self) -> io::Result<()> {
        if self.store.remove(&self.marker())? && !self.kept {
            self.store.remove_folder(&self.root)?;
        }
        Ok(())
    }

    /// The newest attempt at a round of which there is a record.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn newest_attempt(&self, round: RoundNumber) -> io::Result<Option<Attempt>> {
        let mut newest = None;
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let prefix = format!("round-{:04}-attempt-", round.0);
            let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            let attempt = number.and_then(|number| number.parse().ok()).map(Attempt);
            newest = newest.max(attempt);
        }
        Ok(newest)
    }

    /// Removes what is not kept of all attempts, once their round is done.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn forget_attempts(&self) -> io::Result<()> {
        if self.kept {
            return Ok(());
        }
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("round-") {
                self.store.remove_folder(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the masked updates of the attempts at a round before this one, where they are not kept.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn forget_uploads_before(&self, round: RoundNumber, attempt: Attempt) -> io::Result<()> {
        if self.kept {
            return Ok(());
        }
        for before in (1..attempt.0).map(Attempt) {
            let folder = AttemptFolder::new(self, round, before);
            for entry in fs::read_dir(folder.path()).into_iter().flatten() {
                let path = entry?.path();
                if path.extension().is_some_and(|end| end == "masked") {
                    self.store.remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Where every change of the record goes through.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The record's own folder.
    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    pub(super) fn plan(&self) -> PathBuf {
        self.root.join("plan.json")
    }

    pub(super) fn first_adapter(&self) -> PathBuf {
        self.root.join("first-adapter")
    }

    fn marker(&self) -> PathBuf {
        self.root.join("open")
    }
}

/// The folder of one attempt at a round.
#[derive(Debug, Clone)]
pub(super) struct AttemptFolder {
    root: PathBuf,
    store: Store,
}

impl AttemptFolder {
    pub(super) fn new(record: &RecordFolder, round: RoundNumber, attempt: Attempt) -> Self {
        let name = format!("round-{:04}-attempt-{}", round.0, attempt.0);
        Self {
            root: record.root.join(name),
            store: record.store.clone(),
        }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.root
    }

    /// Where every change of the folder goes through.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn open(&self) -> PathBuf {
        self.root.join("open.json")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.root.join("events.bin")
    }

    pub(super) fn upload(&self, member: MemberIndex) -> PathBuf {
        self.root.join(format!("member-{}.masked", member.0))
    }
}
