//! The folder of one run in the operator's directory: `runs/ID`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::files::Access;
use fedlora_protocol::ids::RunId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::store::Store;

/// Characters of the reason for which a run is ended.
const MAX_REASON: usize = 200;

/// The folder of one run.
#[derive(Debug, Clone)]
pub struct RunDirectory {
    root: PathBuf,
    store: Store,
}

impl RunDirectory {
    /// The folder of `run` in the operator's directory, made where it is missing.
    ///
    /// # Errors
    /// The folder that cannot be made, with the system's reason.
    pub(crate) fn create(operator: &Store, run: RunId) -> Result<Self, (PathBuf, io::Error)> {
        let root = runs(operator).join(run.to_string());
        for folder in [root.join("adapters"), root.join("uploads")] {
            fs::create_dir_all(&folder).map_err(|error| (folder, error))?;
        }
        Ok(Self::in_store(operator, root))
    }

    fn in_store(operator: &Store, root: PathBuf) -> Self {
        let store = operator.clone();
        Self { root, store }
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Where every change of the folder goes through.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The folders of all runs in the operator's directory, by their ids.
    ///
    /// # Errors
    /// The folder of runs, where it is there and cannot be read.
    pub(crate) fn all(operator: &Store) -> Result<Vec<Self>, (PathBuf, io::Error)> {
        let folder = runs(operator);
        let names = match fs::read_dir(&folder) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err((folder, error)),
        };
        let mut paths: Vec<_> = names.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let folders = paths.into_iter().filter(|path| path.is_dir());
        Ok(folders.map(|root| Self::in_store(operator, root)).collect())
    }

    /// The folder of `run`, if there is one.
    pub fn of(operator: &Store, run: RunId) -> Option<Self> {
        let root = runs(operator).join(run.to_string());
        root.is_dir().then(|| Self::in_store(operator, root))
    }

    /// The folder of the run whose members were complete last, if there is one.
    ///
    /// # Errors
    /// The system's error for the folder of runs.
    pub fn newest(operator: &Store) -> io::Result<Option<Self>> {
        let all = Self::all(operator).map_err(|(_, error)| error)?;
        let begun = all.into_iter().filter_map(|one| {
            let begun = fs::metadata(one.receipt()).and_then(|file| file.modified());
            Some((begun.ok()?, one))
        });
        let newest = begun.max_by(|(one, a), (other, b)| (one, &a.root).cmp(&(other, &b.root)));
        Ok(newest.map(|(_, one)| one))
    }

    /// The run, by the folder's name; nothing where that names none.
    pub fn run(&self) -> Option<RunId> {
        self.root.file_name()?.to_str()?.parse().ok()
    }

    /// How the run ended; nothing where it is not over.
    ///
    /// # Errors
    /// The system's error, or [`io::ErrorKind::InvalidData`] for a malformed file.
    pub fn end(&self) -> io::Result<Option<RunEnding>> {
        read_json(&self.end_path())
    }

    /// Keeps how the run ended.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn store_end(&self, end: &RunEnding) -> io::Result<()> {
        self.store.write_json(&self.end_path(), end)
    }

    fn end_path(&self) -> PathBuf {
        self.root.join("end.json")
    }

    /// The reason for which the operator wants the run ended, where that was asked for.
    pub fn asked_to_end(&self) -> Option<String> {
        let reason = fs::read_to_string(self.abort_path()).ok()?;
        let printable = reason.trim().chars().filter(|one| !one.is_control());
        Some(printable.take(MAX_REASON).collect())
    }

    /// Asks whoever serves the run to end it.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn ask_to_end(&self, reason: &str) -> io::Result<()> {
        self.store
            .write(&self.abort_path(), reason.as_bytes(), Access::Everyone)
    }

    fn abort_path(&self) -> PathBuf {
        self.root.join("abort")
    }

    /// The folder of the run with this id in hex; without an id, that of the only run. Needs no
    /// keys of the operator's: a copy of `runs` will do.
    ///
    /// # Errors
    /// [`RunSearchError`] where there is no such run, or several and no id.
    pub fn find(operator: &Store, run: Option<&str>) -> Result<Self, RunSearchError> {
        let folder = runs(operator);
        let names = fs::read_dir(&folder).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RunSearchError::NoRun {
                path: operator.root().to_owned(),
            },
            _ => RunSearchError::Io {
                path: folder.clone(),
                source,
            },
        })?;
        let mut there: Vec<_> = names
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| run.is_none_or(|run| run == name))
            .collect();
        there.sort();
        match (&there[..], run) {
            ([name], _) => Ok(Self::in_store(operator, folder.join(name))),
            ([], Some(run)) => Err(RunSearchError::Unknown {
                run: run.to_owned(),
            }),
            ([], None) => Err(RunSearchError::NoRun {
                path: operator.root().to_owned(),
            }),
            _ => Err(RunSearchError::Several { runs: there }),
        }
    }

    /// The folder of a round's adapter, in PEFT's form. That of round 0 is the first adapter, which
    /// is there only where it is the run's result.
    pub fn adapter(&self, round: u32) -> PathBuf {
        self.root.join("adapters").join(format!("round-{round:04}"))
    }

    /// The file of the server optimizer's moments after a round, beside its adapter; only where
    /// the optimizer has any.
    pub fn server_state(&self, round: u32) -> PathBuf {
        let name = format!("round-{round:04}.state");
        self.root.join("adapters").join(name)
    }

    /// The folder of masked updates that wait to be added.
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// The file of signed results, one JSON document a line.
    pub fn results(&self) -> PathBuf {
        self.root.join("results.jsonl")
    }

    /// What the run began with, by which its results are verified: the same that members keep.
    pub fn receipt(&self) -> PathBuf {
        self.root.join("run.json")
    }

    /// The run's roster, in JSON.
    pub fn roster(&self) -> PathBuf {
        self.root.join("roster.json")
    }

    /// What proves that members broke the protocol, one file a member and attempt.
    pub fn evidence(&self) -> PathBuf {
        self.root.join("evidence")
    }

    /// What a run is taken up by after a crash; missing once the run is over, and where that lies in
    /// [`audit`](Self::audit).
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// What is kept so that rounds can be replayed; missing where the operator did not ask for it.
    pub fn audit(&self) -> PathBuf {
        self.root.join("audit")
    }
}

/// How a run ended: `end.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnding {
    /// What it came to.
    pub outcome: EndOutcome,
    /// Why it ended early, where it did.
    pub failure: Option<String>,
    /// When it ended.
    pub at: Timestamp,
}

impl RunEnding {
    /// Of a run that the operator ends for `reason`, which may be empty.
    pub fn by_operator(reason: &str, at: Timestamp) -> Self {
        Self {
            outcome: EndOutcome::Aborted,
            failure: Some(ended_by_operator(reason)),
            at,
        }
    }
}

/// What members are told of a run that the operator ends for `reason`, which may be empty.
pub(crate) fn ended_by_operator(reason: &str) -> String {
    match reason {
        "" => "the operator has ended the run".to_owned(),
        reason => format!("the operator has ended the run: {reason}"),
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndOutcome {
    /// All rounds are done, or as many as the plan's patience allows.
    Finished,
    /// It cannot go on.
    Failed,
    /// The operator ended it.
    Aborted,
}

/// Reads a JSON document that may be missing.
///
/// # Errors
/// The system's error, or [`io::ErrorKind::InvalidData`] for a malformed file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes all masked updates: single ones are not needed once their round has ended.
pub(crate) fn clear_uploads(directory: &RunDirectory) {
    let files = fs::read_dir(directory.uploads())
        .into_iter()
        .flatten()
        .flatten();
    for file in files {
        if let Err(error) = directory.store.remove(&file.path()) {
            warn!(%error, "a masked update that is no longer needed cannot be removed");
        }
    }
}

fn runs(operator: &Store) -> PathBuf {
    operator.root().join("runs")
}

/// Why no run is found.
#[derive(Debug, thiserror::Error)]
pub enum RunSearchError {
    /// The folder of runs cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is no run.
    #[error("{} holds no run", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// There is no run with this id.
    #[error("there is no run {run}")]
    Unknown {
        /// The id that was named.
        run: String,
    },
    /// There are several, and none is named.
    #[error("there are several runs: {}", runs.join(", "))]
    Several {
        /// Their ids.
        runs: Vec<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_run_is_found_and_one_of_several_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path());
        let find = |run| RunDirectory::find(&store, run);
        assert!(matches!(find(None), Err(RunSearchError::NoRun { .. })));
        fs::create_dir(folder.path().join("runs")).unwrap();
        assert!(matches!(find(None), Err(RunSearchError::NoRun { .. })));

        let (one, other) = (RunId([1; 16]), RunId([2; 16]));
        RunDirectory::create(&store, one).unwrap();
        assert!(
            find(None)
                .unwrap()
                .results()
                .parent()
                .unwrap()
                .ends_with(one.to_string())
        );
        RunDirectory::create(&store, other).unwrap();
        assert!(matches!(find(None), Err(RunSearchError::Several { runs }) if runs.len() == 2));
        let id = other.to_string();
        let found = find(Some(&id)).unwrap();
        assert!(
            found
                .audit()
                .starts_with(folder.path().join("runs").join(&id))
        );
        for unknown in ["03", "..", ""] {
            let error = find(Some(unknown)).unwrap_err();
            assert!(matches!(error, RunSearchError::Unknown { .. }), "{unknown}");
        }
    }
}
