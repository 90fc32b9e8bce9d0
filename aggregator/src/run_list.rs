//! All runs of an operator's directory: those that wait, the one that is served, and those that are over.

use std::sync::Arc;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::plan::RunPlan;
use serde::Serialize;

use crate::audit::RecordFolder;
use crate::directory::{Directory, DirectoryError, io_error};
use crate::run_directory::{EndOutcome, RunDirectory};
use crate::run_record::{RunRecord, RunRecordError};
use crate::status::Status;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ListedRun {
    /// The run's identifier, in hexadecimal.
    pub run: String,
    /// Where it stands.
    pub state: ListedState,
    /// When its plan was submitted; nothing where it was served without a queue.
    pub submitted: Option<Timestamp>,
    /// Rounds that are done.
    pub rounds_done: usize,
    /// Rounds of the plan; nothing where that cannot be read.
    pub rounds_planned: Option<u32>,
    /// The members, once they are complete.
    pub members: Vec<MemberName>,
    /// The newest adapter's digest, in hexadecimal.
    pub adapter: Option<String>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it ended early, where it did; or why its files cannot be read.
    pub failure: Option<String>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListedState {
    /// Its plan waits for the runs before it.
    Queued,
    /// It is served.
    Served,
    /// It is not over, and no process serves it just now.
    Stopped,
    /// All rounds are done, or as many as the plan's patience allows.
    Finished,
    /// It could not go on.
    Failed,
    /// The operator ended it.
    Aborted,
    /// It is over; how it ended was not kept.
    Ended,
}

impl ListedState {
    /// The name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Served => "served",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Ended => "ended",
        }
    }
}

/// Reads what a run's folder proves.
pub(crate) type ReadRecord<'a> =
    &'a mut dyn FnMut(&RunDirectory) -> Result<Option<Arc<RunRecord>>, RunRecordError>;

/// All runs, those that are over first and those that wait last.
///
/// # Errors
/// [`DirectoryError`] naming the file that cannot be read. What is wrong with one run stands in its
/// [`failure`](ListedRun::failure).
pub fn all(directory: &Directory) -> Result<Vec<ListedRun>, DirectoryError> {
    let served = served(directory)?;
    all_read_by(directory, served.as_deref(), &mut |folder| {
        Ok(RunRecord::read(folder)?.map(Arc::new))
    })
}

/// The same, where `served` is the run that a process serves, and `read` gives what each run's folder
/// proves.
///
/// # Errors
/// As [`all`].
pub(crate) fn all_read_by(
    directory: &Directory,
    served: Option<&str>,
    read: ReadRecord<'_>,
) -> Result<Vec<ListedRun>, DirectoryError> {
    let queue = directory.queue();
    let queued = queue.plans();
    let queued = queued.map_err(|error| io_error(queue.path_of_folder(), error))?;
    let folders = RunDirectory::all(directory.store());
    let folders = folders.map_err(|(path, error)| io_error(&path, error))?;
    let mut runs = Vec::new();
    for folder in folders {
        let Some(run) = folder.run() else { continue };
        let waiting = queued.iter().find(|plan| plan.run == run);
        let mut listed = of_folder(run, &folder, served, waiting.is_some(), read);
        listed.submitted = waiting.map(|plan| plan.submitted);
        if let Some(waiting) = waiting {
            listed.rounds_planned.get_or_insert(waiting.plan.rounds);
        }
        runs.push((begun(&folder), listed));
    }
    // By the time at which they began; those without members come after them, in the queue's order.
    runs.sort_by_key(|(begun, one)| (begun.is_none(), *begun, one.submitted, one.run.clone()));
    let mut runs: Vec<_> = runs.into_iter().map(|(_, one)| one).collect();
    for plan in queued {
        let name = plan.run.to_string();
        if runs.iter().all(|one| one.run != name) {
            runs.push(ListedRun::waiting(plan.run, plan.submitted, &plan.plan));
        }
    }
    Ok(runs)
}

impl ListedRun {
    fn waiting(run: RunId, submitted: Timestamp, plan: &RunPlan) -> Self {
        Self {
            run: run.to_string(),
            state: ListedState::Queued,
            submitted: Some(submitted),
            rounds_done: 0,
            rounds_planned: Some(plan.rounds),
            members: Vec::new(),
            adapter: None,
            ended: None,
            failure: None,
        }
    }
}

/// The run that a process serves, if one does.
fn served(directory: &Directory) -> Result<Option<String>, DirectoryError> {
    if !directory.is_served()? {
        return Ok(None);
    }
    let path = directory.status_path();
    let status = Status::read(&path).map_err(|error| io_error(&path, error))?;
    Ok(status.map(|status| status.run))
}

fn begun(folder: &RunDirectory) -> Option<std::time::SystemTime> {
    let file = std::fs::metadata(folder.receipt()).ok()?;
    file.modified().ok()
}

fn of_folder(
    run: RunId,
    folder: &RunDirectory,
    served: Option<&str>,
    waits: bool,
    read: ReadRecord<'_>,
) -> ListedRun {
    let name = run.to_string();
    let (end, end_unread) = match folder.end() {
        Ok(end) => (end, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (record, unread) = match read(folder) {
        Ok(record) => (record, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let state = match &end {
        Some(end) => match end.outcome {
            EndOutcome::Finished => ListedState::Finished,
            EndOutcome::Failed => ListedState::Failed,
            EndOutcome::Aborted => ListedState::Aborted,
        },
        None if served == Some(&name) => ListedState::Served,
        None if RecordFolder::of_open_run(folder).is_some() => ListedState::Stopped,
        None if waits => ListedState::Queued,
        None => ListedState::Ended,
    };
    let verified = record.as_ref().map(|record| &record.verified);
    let results = verified.map_or(&[][..], |verified| &verified.results[..]);
    let roster = record
        .as_ref()
        .map(|record| record.receipt.roster.entries());
    let members = roster.unwrap_or_default().iter();
    ListedRun {
        state,
        run: name,
        submitted: None,
        rounds_done: results.len(),
        rounds_planned: verified.map(|verified| verified.plan.rounds),
        members: members.map(|entry| entry.name.clone()).collect(),
        adapter: results.last().map(|last| last.adapter.to_string()),
        ended: end.as_ref().map(|end| end.at),
        failure: end_unread.or(unread).or(end.and_then(|end| end.failure)),
    }
}
