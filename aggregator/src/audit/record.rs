//! What is kept of a run and of each attempt at a round, written while the run goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::{Adapter, peft};
use fedlora_common::clock::Timestamp;
use fedlora_common::files::sync_parent;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::{MemberIndex, MemberSet};
use fedlora_protocol::plan::SignedPlan;
use fedlora_protocol::round::coordinator::Event;
use fedlora_protocol::wire::messages::Open;
use serde::{Deserialize, Serialize};

use super::events::EventWriter;
use super::folder::{self, AttemptFolder};
use crate::run_directory::{RunDirectory, write_json};

/// What a run is about: `plan.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptPlan {
    /// The key that signs plan and results. Members know its fingerprint.
    pub aggregator: IdentityPublic,
    /// The plan, as members were shown it.
    pub plan: SignedPlan,
}

/// What an attempt at a round began with: `open.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptOpening {
    /// When it was opened.
    pub opened: Timestamp,
    /// The members that no phase waits for.
    pub offenders: MemberSet,
    /// M0.
    pub open: Open,
}

/// Keeps what a run is about, and its first adapter.
///
/// # Errors
/// [`RecordError`] naming the file.
pub fn keep_run(
    directory: &RunDirectory,
    plan: &KeptPlan,
    first: &Adapter,
    base_name: &str,
) -> Result<(), RecordError> {
    let audit = directory.audit();
    fs::create_dir_all(&audit).map_err(|error| unwritten(&audit, error))?;
    let path = folder::plan(directory);
    write_json(&path, plan).map_err(|error| unwritten(&path, error))?;
    peft::save(&folder::first_adapter(directory), first, base_name)?;
    Ok(())
}

/// What is kept of one attempt, while it goes on.
#[derive(Debug)]
pub struct AttemptRecord {
    folder: AttemptFolder,
    events: EventWriter,
}

impl AttemptRecord {
    /// Begins the record of an attempt.
    ///
    /// # Errors
    /// [`RecordError`] naming the file, also where the attempt has a record already.
    pub fn begin(directory: &RunDirectory, opening: &KeptOpening) -> Result<Self, RecordError> {
        let Open { round, attempt, .. } = opening.open;
        let folder = AttemptFolder::new(directory, round, attempt);
        fs::create_dir_all(folder.path()).map_err(|error| unwritten(folder.path(), error))?;
        let path = folder.events();
        let events = EventWriter::create(&path).map_err(|error| unwritten(&path, error))?;
        let path = folder.open();
        write_json(&path, opening).map_err(|error| unwritten(&path, error))?;
        Ok(Self { folder, events })
    }

    /// Keeps an event that is about to be applied.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub fn append(&mut self, event: &Event) -> Result<(), RecordError> {
        let written = self.events.append(event);
        written.map_err(|error| unwritten(&self.folder.events(), error))
    }

    /// Makes the events durable, and moves the masked updates that are in the sum here.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub fn finish(
        self,
        uploads: impl IntoIterator<Item = (MemberIndex, PathBuf)>,
    ) -> Result<(), RecordError> {
        let Self { folder, events } = self;
        let path = folder.events();
        events
            .finish()
            .and_then(|()| sync_parent(&path))
            .map_err(|error| unwritten(&path, error))?;
        for (member, from) in uploads {
            let to = folder.upload(member);
            fs::rename(from, &to).map_err(|error| unwritten(&to, error))?;
        }
        sync_parent(&path).map_err(|error| unwritten(&path, error))
    }
}

fn unwritten(path: &Path, source: io::Error) -> RecordError {
    RecordError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file that cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The first adapter's files cannot be written.
    #[error(transparent)]
    Peft(#[from] peft::PeftError),
}
