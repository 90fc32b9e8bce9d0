//! A run that is not over: found again by its record after the aggregator was stopped, with the
//! attempt at a round that it was at.

use std::fs;
use std::io;
use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::coordinator::{Coordinator, Event};
use tracing::warn;

use super::events::{EventFileError, EventReader};
use super::folder::{AttemptFolder, RecordFolder};
use super::record::{AttemptRecord, KeptOpening, KeptPlan};
use super::replay::judge;
use super::run::KeptRun;
use super::{AuditError, read_json, unreadable};
use crate::run_directory::{EndOutcome, RunDirectory, RunEnding, clear_uploads};
use crate::store::Store;

/// A run that is not over.
#[derive(Debug)]
pub(crate) struct OpenRun {
    pub(crate) run: RunId,
    pub(crate) plan: RunPlan,
    pub(crate) directory: RunDirectory,
    pub(crate) record: RecordFolder,
}

/// An attempt at a round that a run was at.
#[derive(Debug)]
pub(crate) struct BegunAttempt {
    opening: KeptOpening,
    events: Vec<Event>,
    record: AttemptRecord,
}

impl OpenRun {
    /// What the record says of the run.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub(crate) fn read(&self) -> Result<KeptRun, AuditError> {
        let path = self.directory.results();
        drop_torn_line(self.directory.store(), &path).map_err(|error| unreadable(&path, error))?;
        KeptRun::read(&self.directory, &self.record)
    }

    /// Nobody takes the run up again. Its results stay.
    ///
    /// # Errors
    /// [`AuditError::Io`] naming the folder.
    pub(crate) fn give_up(self, reason: &str, now: Timestamp) -> Result<(), AuditError> {
        let path = self.record.path().to_owned();
        let end = RunEnding {
            outcome: EndOutcome::Aborted,
            failure: Some(reason.to_owned()),
            at: now,
        };
        let ended = self.directory.store_end(&end);
        let ended = ended.and_then(|()| close(&self.directory, &self.record));
        ended.map_err(|source| AuditError::Io { path, source })
    }
}

/// Removes what a run that is over does not need. How it ended is kept before: its mark as an open run goes
/// last, so that after a crash in between the next start comes back here.
///
/// # Errors
/// What cannot be removed.
pub(crate) fn close(directory: &RunDirectory, record: &RecordFolder) -> io::Result<()> {
    clear_uploads(directory);
    record.end()
}

/// The run of `plan` in the operator's directory that is not over, if there is one. The plan is the
/// run's where it says the same, and names its seed or none.
///
/// # Errors
/// A folder of runs that cannot be read.
pub(crate) fn open_run(operator: &Store, plan: &RunPlan) -> Result<Option<OpenRun>, AuditError> {
    for open in open_runs(operator)? {
        let asked = RunPlan {
            seed: plan.seed.or(open.plan.seed),
            ..plan.clone()
        };
        if asked == open.plan {
            return Ok(Some(open));
        }
        let run = open.run;
        warn!(%run, "a run of another plan is not over: serve that plan to go on with it");
    }
    Ok(None)
}

/// The runs in the operator's directory that are not over. One whose record is of another version, or
/// damaged, is left as it is.
///
/// # Errors
/// A folder of runs that cannot be read.
pub(crate) fn open_runs(operator: &Store) -> Result<Vec<OpenRun>, AuditError> {
    let all = RunDirectory::all(operator);
    let all = all.map_err(|(path, source)| AuditError::Io { path, source })?;
    let mut open = Vec::new();
    for directory in all {
        let Some(record) = RecordFolder::of_open_run(&directory) else {
            RecordFolder::remove_leftover(&directory);
            continue;
        };
        if let Ok(Some(_)) = directory.end() {
            // The aggregator stopped while it closed the record.
            if let Err(error) = close(&directory, &record) {
                let path = record.path().display();
                warn!(%path, %error, "the record of a run that is over stays open");
            }
            continue;
        }
        let path = record.plan();
        let read = read_json::<KeptPlan>(&path)
            .and_then(|KeptPlan { aggregator, plan }| Ok(plan.verify(&aggregator)?));
        match read {
            Ok((run, plan)) => open.push(OpenRun {
                run,
                plan,
                directory,
                record,
            }),
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, "a run that is not over cannot be read: it is left as it is");
            }
        }
    }
    Ok(open)
}

/// The attempt at `round` that the record ends with, if any was opened. What was being written when
/// the aggregator stopped goes.
///
/// # Errors
/// A record that cannot be read.
pub(crate) fn begun_attempt(
    record: &RecordFolder,
    round: RoundNumber,
) -> Result<Option<BegunAttempt>, AuditError> {
    let newest = record.newest_attempt(round);
    let newest = newest.map_err(|error| unreadable(record.path(), error))?;
    let Some(attempt) = newest else {
        return Ok(None);
    };
    let folder = AttemptFolder::new(record, round, attempt);
    let path = folder.open();
    if !path.exists() {
        // No member has seen it.
        let removed = folder.store().remove_folder(folder.path());
        removed.map_err(|error| unreadable(folder.path(), error))?;
        return begun_attempt(record, round);
    }
    let opening = read_json(&path)?;
    let path = folder.events();
    let mut reader = EventReader::open(&path).map_err(|error| unreadable(&path, error))?;
    let mut events = Vec::new();
    for event in reader.by_ref() {
        match event {
            Ok(event) => events.push(event),
            Err(EventFileError::Cut) => break,
            Err(reason) => return Err(AuditError::Events { path, reason }),
        }
    }
    let length = reader.length();
    Ok(Some(BegunAttempt {
        opening,
        events,
        record: AttemptRecord::go_on(folder, length)?,
    }))
}

impl BegunAttempt {
    /// Its number.
    pub(crate) fn attempt(&self) -> Attempt {
        self.opening.open.attempt
    }

    /// When the last event was taken; where there is none, when the attempt was opened.
    pub(crate) fn last_seen(&self) -> Timestamp {
        let last = self.events.last();
        last.map_or(self.opening.opened, |event| event.at)
    }

    /// What it began with, its events, and the record to go on with.
    pub(crate) fn into_parts(self) -> (KeptOpening, Vec<Event>, AttemptRecord) {
        (self.opening, self.events, self.record)
    }
}

/// Whether `event` is what the coordinator makes of its message.
pub(crate) fn is_genuine(coordinator: &Coordinator, event: &Event) -> bool {
    judge(coordinator, event.clone(), 0).is_ok()
}

/// Removes a last line that was being written.
fn drop_torn_line(store: &Store, path: &Path) -> io::Result<()> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let length = whole.map_or(0, |at| at + 1);
    if length < text.len() {
        store.truncate(path, length as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_being_written_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let store = Store::folder(folder.path());
        drop_torn_line(&store, &path).unwrap();
        for (text, left) in [("", ""), ("a\nb\n", "a\nb\n"), ("a\nb", "a\n"), ("a", "")] {
            fs::write(&path, text).unwrap();
            drop_torn_line(&store, &path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), left);
        }
    }
}
