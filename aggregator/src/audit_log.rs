//! The operator's audit log: what was removed of what runs published, and which adapters were put back in
//! place. One entry a line, signed by the operator and chained to the one before, in
//! `audit-log/entries.jsonl`. It only grows.

use std::fs;
use std::io;
use std::path::PathBuf;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_common::files::{self, create_private_folder};
use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic, Signature};
use fedlora_protocol::receipt::whole_lines;
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// The folder in the operator's directory.
pub(crate) const FOLDER: &str = "audit-log";

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Its place in the log, from 1.
    pub number: u64,
    /// When it was written, just before it was carried out.
    pub at: Timestamp,
    /// What was done.
    pub action: LogAction,
    /// The digest of the entry before; of the log's name before the first.
    pub previous: Digest,
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum LogAction {
    /// Files of a run that is over are removed.
    Prune {
        /// The run's identifier, in hexadecimal.
        run: String,
        /// Who decided it.
        by: PrunedBy,
        /// The adapters whose files go, with the rounds that they came of.
        adapters: Vec<LoggedAdapter>,
        /// What else goes, by the names of files and folders in the run's folder. `.` is all of it.
        others: Vec<String>,
        /// Bytes of all that goes.
        bytes: u64,
    },
    /// An exported adapter is replaced by an earlier one.
    Rollback {
        /// The run of the adapter that is put in place, in hexadecimal.
        run: String,
        /// That adapter.
        adapter: LoggedAdapter,
        /// The digest of the one that was there.
        replaced: Digest,
    },
}

/// An adapter that an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedAdapter {
    /// The round that it came of; 0 for a run's first adapter.
    pub round: u32,
    /// Its digest.
    pub adapter: Digest,
}

/// Who decided that something is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrunedBy {
    /// `serve`, by the retention in the configuration.
    Retention,
    /// The operator, by a command.
    Command,
}

/// An entry with its signature, as a line holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    entry: LogEntry,
    signature: Signature,
}

impl LogEntry {
    /// What the operator signs, and what the next entry names.
    pub fn digest(&self) -> Digest {
        let text = serde_json::to_vec(self).expect("an entry has text keys");
        Digest::of("fedlora 1 audit log entry", &text)
    }
}

/// The log of an operator's directory.
#[derive(Debug, Clone)]
pub struct AuditLog {
    store: Store,
    folder: PathBuf,
}

impl AuditLog {
    /// The log of an operator's directory, which may have no entry yet.
    pub fn of(store: &Store) -> Self {
        Self {
            folder: store.root().join(FOLDER),
            store: store.clone(),
        }
    }

    /// Adds an entry, durably. Whoever writes to the log at the same time waits.
    ///
    /// # Errors
    /// [`AuditLogError`]; nothing is added to a log that does not verify.
    pub fn append(
        &self,
        key: &IdentityKey,
        at: Timestamp,
        action: LogAction,
    ) -> Result<(), AuditLogError> {
        create_private_folder(&self.folder).map_err(|error| self.io(error))?;
        // Not kept by a database, as other locks.
        let _held = files::lock(&self.folder.join("lock")).map_err(|error| self.io(error))?;
        let text = self.text()?;
        let whole = whole_lines(&text);
        let before = self.verified(whole, &key.public())?;
        let entry = LogEntry {
            number: before.len() as u64 + 1,
            at,
            action,
            previous: head(&before),
        };
        let signature = key.sign(&entry.digest());
        let mut line = serde_json::to_vec(&Signed { entry, signature })
            .map_err(|error| self.io(error.into()))?;
        line.push(b'\n');
        // A crash cut the last line off: what it said was not carried out.
        if whole.len() < text.len() {
            let cut = self.store.truncate(&self.path(), whole.len() as u64);
            cut.map_err(|error| self.io(error))?;
        }
        let added = self.store.append(&self.path(), &line);
        added.map_err(|error| self.io(error))
    }

    /// All entries, each verified: signed by the operator with this key, and after the one before.
    ///
    /// # Errors
    /// [`AuditLogError`] with the first entry that is wrong.
    pub fn read(&self, operator: &IdentityPublic) -> Result<Vec<LogEntry>, AuditLogError> {
        self.verified(whole_lines(&self.text()?), operator)
    }

    fn text(&self) -> Result<Vec<u8>, AuditLogError> {
        match fs::read(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            text => text.map_err(|error| self.io(error)),
        }
    }

    fn verified(
        &self,
        text: &[u8],
        operator: &IdentityPublic,
    ) -> Result<Vec<LogEntry>, AuditLogError> {
        let lines = text.split(|byte| *byte == b'\n');
        let mut entries = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let number = entries.len() as u64 + 1;
            let wrong = |reason: &str| AuditLogError::Entry {
                path: self.path(),
                number,
                reason: reason.to_owned(),
            };
            let read = serde_json::from_slice::<Signed>(line);
            let Signed { entry, signature } = read.map_err(|error| wrong(&error.to_string()))?;
            if entry.number != number || entry.previous != head(&entries) {
                return Err(wrong("it does not follow from the one before"));
            }
            if operator.verify(&entry.digest(), &signature).is_err() {
                return Err(wrong("it is not signed by this operator"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn path(&self) -> PathBuf {
        self.folder.join("entries.jsonl")
    }

    fn io(&self, source: io::Error) -> AuditLogError {
        let path = self.path();
        AuditLogError::Io { path, source }
    }
}

/// What the next entry is chained to.
fn head(entries: &[LogEntry]) -> Digest {
    match entries.last() {
        Some(last) => last.digest(),
        None => DigestWriter::new("fedlora 1 audit log").finish(),
    }
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuditLogError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An entry that was changed, left out, moved or made up.
    #[error("{}: entry {number}: {reason}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The entry's place, from 1.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> IdentityKey {
        IdentityKey::from_bytes(&[9; 32])
    }

    fn action(round: u32) -> LogAction {
        LogAction::Prune {
            run: "0a".to_owned(),
            by: PrunedBy::Retention,
            adapters: vec![LoggedAdapter {
                round,
                adapter: Digest::from_bytes([1; 32]),
            }],
            others: vec!["audit".to_owned()],
            bytes: 7,
        }
    }

    #[test]
    fn entries_are_chained_and_a_line_that_a_crash_cut_off_goes() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::of(&Store::folder(folder.path()));
        assert_eq!(log.read(&key().public()).unwrap(), []);
        for round in 1..=2 {
            let at = Timestamp(u64::from(round));
            log.append(&key(), at, action(round)).unwrap();
        }
        let path = folder.path().join("audit-log/entries.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{}", &text[..20])).unwrap();
        log.append(&key(), Timestamp(3), action(3)).unwrap();
        let entries = log.read(&key().public()).unwrap();
        let numbers: Vec<_> = entries.iter().map(|one| (one.number, one.at.0)).collect();
        assert_eq!(numbers, [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(entries[2].action, action(3));
        assert_eq!(entries[2].previous, entries[1].digest());
    }

    #[test]
    fn every_change_is_found_where_it_is_and_nothing_is_added_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = AuditLog::of(&Store::folder(folder.path()));
        for round in 1..=3 {
            log.append(&key(), Timestamp(1), action(round)).unwrap();
        }
        let path = folder.path().join("audit-log/entries.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let cases = [
            (text.replacen("\"round\":2", "\"round\":4", 1), 2),
            (format!("{}\n{}\n", lines[0], lines[2]), 2),
            (format!("{}\n{}\n", lines[1], lines[0]), 1),
            (format!("{}\nnothing\n", lines[0]), 2),
        ];
        for (changed, place) in cases {
            fs::write(&path, &changed).unwrap();
            let found = log.read(&key().public()).unwrap_err();
            let named = matches!(found, AuditLogError::Entry { number, .. } if number == place);
            assert!(named, "{found}");
            assert!(log.append(&key(), Timestamp(1), action(9)).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), changed);
        }
        fs::write(&path, &text).unwrap();
        let stranger = IdentityKey::from_bytes(&[8; 32]).public();
        assert!(log.read(&stranger).is_err());
    }
}
