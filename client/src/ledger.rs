//! The member's round log in a file, `ledger.json`. An entry is synced before the call returns.
//!
//! Two processes on one directory share the log: each call holds a lock on `ledger.lock` from
//! reading to writing, so that neither overlooks what the other has revealed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::digest::Digest;
use fedlora_common::files::{self, Access, write_atomic};
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::round::participant::{
    LedgerEntries, LedgerError, LedgerRound, LedgerRun, RoundLedger,
};
use serde::Deserialize;

/// A log in a member's directory.
#[derive(Debug)]
pub struct FileLedger {
    path: PathBuf,
}

/// What the file may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Entries(LedgerEntries),
    /// Before reveals were noted by adapter.
    Runs(Vec<LedgerRun>),
}

impl FileLedger {
    /// The log in the file at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the log, changes it, and stores it, under the lock.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut LedgerEntries) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let lock = self.path.with_extension("lock");
        let held = files::lock(&lock).map_err(|error| storage(&lock, &error))?;
        let mut entries = self.read()?;
        let outcome = change(&mut entries)?;
        let text = serde_json::to_vec(&entries).expect("a log entry has text keys");
        write_atomic(&self.path, &text, Access::Owner).map_err(|error| self.storage(&error))?;
        drop(held);
        Ok(outcome)
    }

    fn read(&self) -> Result<LedgerEntries, LedgerError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LedgerEntries::default());
            }
            Err(error) => return Err(self.storage(&error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(Stored::Entries(entries)) => Ok(entries),
            Ok(Stored::Runs(runs)) => Ok(LedgerEntries {
                runs,
                ..LedgerEntries::default()
            }),
            Err(_) => {
                let damaged = io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not a round log; without it this member cannot know what it revealed, so it \
                     takes part in no round. Restore the newest copy",
                );
                Err(self.storage(&damaged))
            }
        }
    }

    fn storage(&self, error: &io::Error) -> LedgerError {
        storage(&self.path, error)
    }
}

impl RoundLedger for FileLedger {
    fn open(&mut self, round: &LedgerRound) -> Result<Option<RoundNumber>, LedgerError> {
        self.change(|entries| entries.open(round))
    }

    fn sign(&mut self, round: &LedgerRound) -> Result<(), LedgerError> {
        self.change(|entries| entries.sign(round))
    }

    fn reveal(&mut self, round: &LedgerRound, list: Digest) -> Result<(), LedgerError> {
        self.change(|entries| entries.reveal(round, list))
    }
}

fn storage(path: &Path, error: &io::Error) -> LedgerError {
    LedgerError::Storage {
        message: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use fedlora_protocol::ids::{Attempt, RunId};

    use super::*;

    const LIST: Digest = Digest::from_bytes([5; 32]);

    fn round(run: u8, round: u32, attempt: u32, adapter: u8) -> LedgerRound {
        LedgerRound {
            run: RunId([run; 16]),
            round: RoundNumber(round),
            attempt: Attempt(attempt),
            adapter: Digest::from_bytes([adapter; 32]),
        }
    }

    fn ledger(folder: &tempfile::TempDir) -> FileLedger {
        FileLedger::new(folder.path().join("ledger.json"))
    }

    #[test]
    fn the_ledger_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let open = |one: &LedgerRound| ledger(&folder).open(one);
        open(&round(1, 1, 1, 1)).unwrap();
        assert!(open(&round(1, 1, 1, 1)).is_err());
        open(&round(1, 1, 2, 1)).unwrap();
        open(&round(2, 1, 1, 1)).unwrap();
        ledger(&folder).sign(&round(1, 1, 2, 1)).unwrap();
        assert!(matches!(
            ledger(&folder).sign(&round(2, 1, 1, 1)),
            Err(LedgerError::OtherRun { .. })
        ));
        ledger(&folder).reveal(&round(1, 1, 2, 1), LIST).unwrap();
        assert!(ledger(&folder).reveal(&round(1, 1, 2, 1), LIST).is_err());
        assert!(open(&round(1, 1, 3, 1)).is_err());
        assert!(matches!(
            open(&round(2, 1, 2, 1)),
            Err(LedgerError::SecondSum { .. })
        ));
        open(&round(2, 1, 2, 2)).unwrap();
        assert_eq!(open(&round(1, 2, 1, 3)), Ok(Some(RoundNumber(1))));
        fs::write(folder.path().join("ledger.json"), "{").unwrap();
        let broken = open(&round(1, 3, 1, 4)).unwrap_err().to_string();
        assert!(
            broken.contains("ledger.json") && broken.contains("Restore"),
            "{broken}"
        );
    }

    #[test]
    fn a_ledger_of_runs_alone_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&[LedgerRun {
            run: RunId([1; 16]),
            opened: Some((RoundNumber(2), Attempt(1))),
            revealed: Some(RoundNumber(1)),
        }])
        .unwrap();
        fs::write(folder.path().join("ledger.json"), text).unwrap();
        assert!(matches!(
            ledger(&folder).open(&round(1, 2, 1, 9)),
            Err(LedgerError::Replayed { .. })
        ));
        assert_eq!(
            ledger(&folder).open(&round(1, 2, 2, 9)),
            Ok(Some(RoundNumber(1)))
        );
    }

    /// Every thread opens its own round, then reveals on one common adapter: one may.
    #[test]
    fn racing_processes_do_not_overlook_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let revealed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|run| {
                    let mut own = ledger(&folder);
                    scope.spawn(move || {
                        let one = round(run, 1, 1, 7);
                        own.open(&one).is_ok() && own.reveal(&one, LIST).is_ok()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| usize::from(thread.join().unwrap()))
                .sum()
        });
        assert_eq!(revealed, 1);
        assert_eq!(ledger(&folder).read().unwrap().reveals.len(), 1);
    }
}
