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
use super::folder::{AttemptFolder, RecordFolder};

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

/// Keeps what a run is about, and its first adapter: from here on the run is not over.
///
/// # Errors
/// [`RecordError`] naming the file.
pub fn keep_run(
    record: &RecordFolder,
    plan: &KeptPlan,
    first: &Adapter,
    base_name: &str,
) -> Result<(), RecordError> {
    let root = record.path();
    fs::create_dir_all(root).map_err(|error| unwritten(root, error))?;
    let path = record.plan();
    let store = record.store();
    let written = store.write_json(&path, plan);
    written.map_err(|error| unwritten(&path, error))?;
    let path = record.first_adapter();
    peft::save(&path, first, base_name)?;
    let adopted = store.adopt(&path);
    adopted.map_err(|error| unwritten(&path, error))?;
    record.begin().map_err(|error| unwritten(root, error))
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
    pub fn begin(record: &RecordFolder, opening: &KeptOpening) -> Result<Self, RecordError> {
        let Open { round, attempt, .. } = opening.open;
        let folder = AttemptFolder::new(record, round, attempt);
        fs::create_dir_all(folder.path()).map_err(|error| unwritten(folder.path(), error))?;
        let path = folder.events();
        let store = folder.store();
        let events = EventWriter::create(store, &path).map_err(|error| unwritten(&path, error))?;
        let path = folder.open();
        let written = store.write_json(&path, opening);
        written.map_err(|error| unwritten(&path, error))?;
        sync_parent(&folder.events())
            .and_then(|()| sync_parent(folder.path()))
            .map_err(|error| unwritten(folder.path(), error))?;
        Ok(Self { folder, events })
    }

    /// Goes on with the record of an attempt after its first events, which are so many bytes.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub(super) fn go_on(folder: AttemptFolder, length: u64) -> Result<Self, RecordError> {
        let path = folder.events();
        let events = EventWriter::append_at(folder.store(), &path, length)
            .map_err(|error| unwritten(&path, error))?;
        Ok(Self { folder, events })
    }

    /// Keeps an event that is about to be applied; durably from the next [`sync`](Self::sync) on.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub fn append(&mut self, event: &Event) -> Result<(), RecordError> {
        let written = self.events.append(event);
        written.map_err(|error| unwritten(&self.folder.events(), error))
    }

    /// Makes the events so far durable.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub fn sync(&self) -> Result<(), RecordError> {
        let synced = self.events.sync();
        synced.map_err(|error| unwritten(&self.folder.events(), error))
    }

    /// Moves a masked update here that is about to be added to the sum: its member, which may have
    /// another transfer under way, can no longer replace it. Gives the new path.
    ///
    /// # Errors
    /// [`RecordError`] naming the file, which then lies where it lay.
    pub fn take_upload(&self, member: MemberIndex, from: &Path) -> Result<PathBuf, RecordError> {
        let to = self.folder.upload(member);
        // It was moved before a crash.
        if to.exists() {
            return Ok(to);
        }
        let renamed = self.folder.store().rename(from, &to);
        renamed.map_err(|error| unwritten(&to, error))?;
        Ok(to)
    }

    /// Makes the record durable.
    ///
    /// # Errors
    /// [`RecordError`] naming the file.
    pub fn finish(self) -> Result<(), RecordError> {
        let path = self.folder.events();
        self.events
            .finish()
            .and_then(|()| sync_parent(&path))
            .map_err(|error| unwritten(&path, error))
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
        /// The file that cannot be written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The first adapter's files cannot be written.
    #[error(transparent)]
    Peft(#[from] peft::PeftError),
}

#[cfg(test)]
mod tests {
    use fedlora_adapter::Factors;
    use fedlora_common::digest::Digest;
    use fedlora_protocol::crypto::sign::IdentityKey;
    use fedlora_protocol::fixed::LaneBits;
    use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
    use fedlora_protocol::plan::RunPlan;

    use crate::run_directory::RunDirectory;
    use crate::store::Store;

    use super::*;

    fn opening() -> KeptOpening {
        let digest = Digest::from_bytes([1; 32]);
        KeptOpening {
            opened: Timestamp(1),
            offenders: MemberSet::default(),
            open: Open {
                suite: 1,
                run: RunId([1; 16]),
                round: RoundNumber(1),
                attempt: Attempt(2),
                previous: digest,
                roster: digest,
                adapter: digest,
                plan: digest,
                layout: digest,
                factors: Factors::Both,
                clip: 0.1,
                bits: LaneBits::B24,
                neighbours: 2,
                threshold: 2,
                confirmations: 3,
                minimum: 3,
            },
        }
    }

    #[test]
    fn a_plan_comes_back_to_the_bit() {
        // A parser that is off by a bit in the last place would cost the plan its signature.
        let rates = [0.0020796181086732758, 0.1 + 0.2, 1e-3];
        for rate in rates {
            let text = format!(
                "rounds = 1\nmembers = 3\ntraining.learning_rate = {rate}\n\
                 [adapter]\nlora = {{ rank = 1, alpha = 1.0, targets = [\"q\"] }}\n"
            );
            let plan = RunPlan::from_toml(&text).unwrap();
            let key = IdentityKey::from_bytes(&[1; 32]);
            let kept = KeptPlan {
                aggregator: key.public(),
                plan: SignedPlan::sign(RunId([1; 16]), plan.clone(), &key),
            };
            let text = serde_json::to_vec(&kept).unwrap();
            let again: KeptPlan = serde_json::from_slice(&text).unwrap();
            let (_, verified) = again.plan.verify(&again.aggregator).unwrap();
            assert_eq!(verified, plan, "{rate}");
        }
    }

    #[test]
    fn an_upload_that_is_kept_stays_as_it_was_added() {
        let folder = tempfile::tempdir().unwrap();
        let run = opening().open.run;
        let directory = RunDirectory::create(&Store::folder(folder.path()), run).unwrap();
        let kept = RecordFolder::new(&directory, true);
        let record = AttemptRecord::begin(&kept, &opening()).unwrap();
        let sent = directory.uploads().join("sent");
        fs::write(&sent, "first").unwrap();
        let taken = record.take_upload(MemberIndex(3), &sent).unwrap();
        assert!(taken.ends_with("audit/round-0001-attempt-2/member-3.masked"));
        // The member's other transfer ends.
        fs::write(&sent, "second").unwrap();
        assert_eq!(fs::read_to_string(&taken).unwrap(), "first");
        // Taken before a crash, and again after it.
        let gone = folder.path().join("gone");
        assert_eq!(record.take_upload(MemberIndex(3), &gone).unwrap(), taken);
        assert!(
            record
                .take_upload(MemberIndex(4), &folder.path().join("none"))
                .is_err()
        );
        record.finish().unwrap();
        // An attempt is kept once.
        assert!(AttemptRecord::begin(&kept, &opening()).is_err());
    }
}
