//! From the operators' directories to a snapshot. What is read is used again for a moment, and what is
//! verified of a run until its files change: however often the page is asked for, the work is bounded.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RosterWords;
use fedlora_shell::disk;

use super::problems::{self, Problem, ProblemKind};
use super::snapshot::{DiskRoom, FederationView, RunView, Snapshot};
use crate::ca::requests::Requests;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::registry::Registry;
use crate::run_directory::RunDirectory;
use crate::run_list;
use crate::run_record::{RunRecord, RunRecordError};
use crate::status::Status;

/// How long a snapshot is used again.
const FRESH: Duration = Duration::from_secs(2);
/// Heads whose words are remembered.
const MAX_WORDS: usize = 64;

/// A federation that the page shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its name.
    pub federation: String,
    /// The operator's directory.
    pub directory: Directory,
}

/// Reads what the page shows.
#[derive(Debug)]
pub(super) struct Reader {
    shown: Vec<Shown>,
    clock: Arc<dyn Clock>,
    /// The process that serves: what another one left is not live.
    pid: u32,
    read: Mutex<Read>,
}

/// What was read before.
#[derive(Debug, Default)]
struct Read {
    snapshot: Option<Arc<Snapshot>>,
    records: HashMap<RunId, (Stamp, Option<Arc<RunRecord>>)>,
    words: BTreeMap<Digest, String>,
}

/// What tells a file from a later one: its length and when it changed.
type Stamp = [Option<(u64, SystemTime)>; 2];

impl Reader {
    pub(super) fn new(shown: Vec<Shown>, clock: Arc<dyn Clock>, pid: u32) -> Self {
        Self {
            shown,
            clock,
            pid,
            read: Mutex::default(),
        }
    }

    /// All federations, as they were at most two seconds ago.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let now = self.clock.now();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &read.snapshot
            && (snapshot.at..snapshot.at.after(FRESH)).contains(&now)
        {
            return Arc::clone(snapshot);
        }
        let federations = self.shown.iter().enumerate();
        let snapshot = Arc::new(Snapshot {
            schema_version: 1,
            release: env!("CARGO_PKG_VERSION"),
            at: now,
            federations: federations
                .map(|(place, shown)| read.federation(place + 1, shown, self.pid, now))
                .collect(),
        });
        read.snapshot = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// One run of a federation with all its rounds; nothing before its members were complete.
    ///
    /// # Errors
    /// Why its files cannot be read, or do not verify.
    pub(super) fn run(&self, number: usize, run: RunId) -> Result<Option<RunView>, RunRecordError> {
        let shown = number
            .checked_sub(1)
            .and_then(|place| self.shown.get(place));
        let Some(shown) = shown else { return Ok(None) };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.run(&shown.directory, run)
    }
}

impl Read {
    fn federation(
        &mut self,
        number: usize,
        shown: &Shown,
        pid: u32,
        now: Timestamp,
    ) -> FederationView {
        let directory = &shown.directory;
        let mut found = Vec::new();
        // Where the directory lies is nobody's business.
        let root = format!("{}/", directory.root().display());
        let unread = |name: &str, error: &dyn std::fmt::Display| {
            let text = format!("{name} cannot be read: {error}").replace(&root, "");
            Problem::new(ProblemKind::File, None, text)
        };
        let status = match Status::read(&directory.status_path()) {
            Ok(status) => status,
            Err(error) => {
                found.push(unread("status.json", &error));
                None
            }
        };
        let status = status.map(|one| if one.pid == pid { one } else { one.unserved() });
        if let Some(status) = &status {
            problems::of_status(status, now, &mut found);
        }
        match Requests::of(directory.root()).all() {
            Ok(waiting) => problems::of_waiting(&waiting, &mut found),
            Err(error) => found.push(unread("what waits for the authority's key", &error)),
        }
        let served = status.as_ref().filter(|status| status.pid == pid);
        let served = served.map(|status| status.run.as_str());
        let runs = run_list::all_read_by(directory, served, &mut |folder| self.record(folder));
        let runs = runs.unwrap_or_else(|error| {
            found.push(unread("the list of runs", &error));
            Vec::new()
        });
        problems::of_runs(&runs, &mut found);
        let members = Registry::new(directory.clone()).members();
        let members = members.unwrap_or_else(|error| {
            found.push(unread("the list of members", &error));
            Vec::new()
        });
        let room = disk::room(directory.root()).map(|room| DiskRoom {
            free_bytes: room.free,
            size_bytes: room.size,
        });
        if let Some(room) = room {
            problems::of_disk(room, &mut found);
        }
        let run = status.as_ref().and_then(|status| status.run.parse().ok());
        // What is wrong with it stands in the list.
        let current = run.and_then(|run| self.run(directory, run).ok().flatten());
        if let Some(folder) = run.and_then(|run| RunDirectory::of(directory.store(), run)) {
            let pieces = fs::read_dir(folder.evidence()).map_or(0, |files| files.flatten().count());
            if pieces > 0 {
                let text = format!(
                    "evidence that a member broke the protocol, {}: see `fedlora-aggregator audit \
                     evidence`",
                    match pieces {
                        1 => "one piece".to_owned(),
                        several => format!("{several} pieces"),
                    }
                );
                let run = folder.run().map(|run| run.to_string());
                found.push(Problem::new(ProblemKind::Evidence, run.as_deref(), text));
            }
        }
        FederationView {
            number,
            federation: shown.federation.clone(),
            status,
            current,
            runs,
            members: members.into_iter().map(|member| member.name).collect(),
            disk: room,
            problems: found,
        }
    }

    fn run(
        &mut self,
        directory: &Directory,
        run: RunId,
    ) -> Result<Option<RunView>, RunRecordError> {
        let Some(folder) = RunDirectory::of(directory.store(), run) else {
            return Ok(None);
        };
        let Some(record) = self.record(&folder)? else {
            return Ok(None);
        };
        let words = self.words_of(&record.verified.head);
        Ok(Some(RunView::of(&record, words)))
    }

    /// What a run's folder proves, verified again only where its files have changed.
    fn record(&mut self, folder: &RunDirectory) -> Result<Option<Arc<RunRecord>>, RunRecordError> {
        let Some(run) = folder.run() else {
            return Ok(None);
        };
        // Before it is read: what comes in between is read the next time.
        let stamp = [folder.receipt(), folder.results()].map(|path| stamp_of(&path));
        match self.records.get(&run) {
            Some((known, record)) if *known == stamp => Ok(record.clone()),
            _ => {
                let record = RunRecord::read(folder)?.map(Arc::new);
                self.records.insert(run, (stamp, record.clone()));
                Ok(record)
            }
        }
    }

    fn words_of(&mut self, head: &Digest) -> String {
        if let Some(words) = self.words.get(head) {
            return words.clone();
        }
        if self.words.len() >= MAX_WORDS {
            self.words.clear();
        }
        let words = RosterWords::of(head).to_string();
        self.words.insert(*head, words.clone());
        words
    }
}

fn stamp_of(path: &Path) -> Option<(u64, SystemTime)> {
    let file = fs::metadata(path).ok()?;
    Some((file.len(), file.modified().ok()?))
}
