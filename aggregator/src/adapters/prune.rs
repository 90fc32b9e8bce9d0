//! Removing what nobody needs of runs that are over: first the adapters of rounds that are neither a run's
//! result nor its newest, and more where the operator says so. The signed plans, rosters and results always
//! stay, and say what there was. Each removal is an entry of the audit log before it is made.
//!
//! A command and the retention that `serve` carries out differ in their rule alone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityKey;
use serde::Serialize;

use super::{Published, PublishedAdapter, PublishedRuns, published, starts};
use crate::audit::RecordFolder;
use crate::audit_log::{self, Event, LogError, LoggedAdapter, PrunedBy};
use crate::queue::Queue;
use crate::run_directory::RunDirectory;
use crate::store::Store;

/// Which runs are old, and what of an old run stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRule {
    /// Runs that ended before this are old.
    pub ended_before: Option<Timestamp>,
    /// Runs that are over are old beyond as many that ended last.
    pub newest_runs: Option<usize>,
    /// As many of each run's newest rounds keep their adapters.
    pub newest_rounds: u32,
    /// Whether each run's result and its newest adapter stay.
    pub results: bool,
    /// Whether what an audit can replay stays, with all adapters of its run.
    pub replays: bool,
    /// Whether evidence against members stays.
    pub evidence: bool,
}

impl PruneRule {
    /// The rule that removes nothing but adapters: a run's result, its newest adapters, replays and
    /// evidence stay.
    pub fn adapters(newest_rounds: u32, ended_before: Timestamp) -> Self {
        Self {
            ended_before: Some(ended_before),
            newest_runs: None,
            newest_rounds,
            results: true,
            replays: true,
            evidence: true,
        }
    }
}

/// What went, or would go.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Pruned {
    /// The adapters, with their sizes before.
    pub removed: Vec<PublishedAdapter>,
    /// What else, by its path in the operator's directory.
    pub others: Vec<String>,
    /// Bytes of all that.
    pub bytes: u64,
    /// Runs that were left as they are, and why.
    pub left: Vec<(String, String)>,
}

/// What goes of one run.
#[derive(Debug)]
struct RunPruning {
    run: String,
    folder: PathBuf,
    adapters: Vec<PublishedAdapter>,
    /// Files and folders, by their names in the run's folder, with what is in them in bytes.
    others: Vec<(String, u64)>,
    /// Folders of `adapters`.
    folders: Vec<PathBuf>,
}

/// What the rule removes now. Changes nothing.
///
/// # Errors
/// [`PruneError`] with what cannot be read; the audit log too, which names adapters that stay.
pub fn would_prune(
    store: &Store,
    key: &IdentityKey,
    rule: &PruneRule,
) -> Result<Pruned, PruneError> {
    let (all, left) = planned(store, key, rule)?;
    Ok(told(&all, left))
}

/// Removes by the rule, for whom `by` says.
///
/// # Errors
/// [`PruneError`] with what cannot be read, logged or removed. What was removed before is gone.
pub fn prune(
    store: &Store,
    key: &IdentityKey,
    rule: &PruneRule,
    (by, at): (PrunedBy, Timestamp),
) -> Result<Pruned, PruneError> {
    let (all, left) = planned(store, key, rule)?;
    for one in &all {
        audit_log::append(store, key, at, one.entry(by))?;
        one.carry_out(store)
            .map_err(|(path, source)| PruneError::Io { path, source })?;
    }
    Ok(told(&all, left))
}

fn told(all: &[RunPruning], left: Vec<(String, String)>) -> Pruned {
    let mut pruned = Pruned {
        left,
        ..Pruned::default()
    };
    for one in all {
        pruned.bytes += one.bytes();
        pruned.removed.extend(one.adapters.iter().cloned());
        let named = |(name, _): &(String, u64)| match name.as_str() {
            "." => format!("runs/{}", one.run),
            name => format!("runs/{}/{name}", one.run),
        };
        pruned.others.extend(one.others.iter().map(named));
    }
    pruned
}

impl RunPruning {
    fn bytes(&self) -> u64 {
        let adapters = self.adapters.iter().filter_map(|one| one.bytes);
        adapters.sum::<u64>() + self.others.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn entry(&self, by: PrunedBy) -> Event {
        let adapters = self.adapters.iter().map(|one| LoggedAdapter {
            round: one.round,
            adapter: one.adapter,
        });
        Event::Pruned {
            run: self.run.clone(),
            by,
            adapters: adapters.collect(),
            others: self.others.iter().map(|(name, _)| name.clone()).collect(),
            bytes: self.bytes(),
        }
    }

    fn carry_out(&self, store: &Store) -> Result<(), (PathBuf, io::Error)> {
        let others = self.others.iter().map(|(name, _)| match name.as_str() {
            "." => self.folder.clone(),
            name => self.folder.join(name),
        });
        for path in self.folders.iter().cloned().chain(others) {
            let gone = match path.is_dir() {
                true => store.remove_folder(&path),
                false => store.remove(&path),
            };
            gone.map_err(|error| (path, error))?;
        }
        Ok(())
    }
}

type Planned = (Vec<RunPruning>, Vec<(String, String)>);

fn planned(store: &Store, key: &IdentityKey, rule: &PruneRule) -> Result<Planned, PruneError> {
    let in_folder = |(path, source)| PruneError::Io { path, source };
    let PublishedRuns { runs, unreadable } = published(store).map_err(in_folder)?;
    let mut left: Vec<_> = unreadable
        .into_iter()
        .map(|(run, why)| (run, format!("its files cannot be read: {why}")))
        .collect();
    let unread: BTreeSet<_> = left.iter().map(|(run, _)| run.clone()).collect();
    let mut named = starts(store).map_err(in_folder)?;
    named.extend(rolled_back_to(store, key)?);
    let queue = Queue::new(store.clone());
    let mut all = Vec::new();
    let mut over = Vec::new();
    let begun: BTreeSet<_> = runs.iter().map(|one| one.run).collect();
    for one in runs {
        match one.ended {
            Some(ended) => over.push((ended, Over::Published(Box::new(one)))),
            None => left.push((one.run.to_string(), "it is not over".to_owned())),
        }
    }
    // Runs that ended before their members were complete. Nothing was signed.
    for folder in RunDirectory::all(store).map_err(in_folder)? {
        let Some(run) = folder.run() else { continue };
        let waits = queue.contains(run) || RecordFolder::of_open_run(&folder).is_some();
        if waits || begun.contains(&run) || unread.contains(&run.to_string()) {
            continue;
        }
        if let Ok(Some(end)) = folder.end() {
            over.push((end.at, Over::Never(folder)));
        }
    }
    over.sort_by_key(|(ended, one)| (std::cmp::Reverse(*ended), one.name()));
    for (place, (ended, one)) in over.into_iter().enumerate() {
        let beyond = rule.newest_runs.is_some_and(|newest| place >= newest);
        let before = rule.ended_before.is_some_and(|before| ended < before);
        match (beyond || before, one) {
            (false, one) => {
                let why = match rule.newest_runs {
                    None => "it ended too short a time ago",
                    Some(_) => "it ended too short a time ago, and is one of the newest",
                };
                left.push((one.name(), why.to_owned()));
            }
            (true, Over::Never(folder)) => {
                // Its end is what the list of runs tells; only a rule that keeps no results lets it go.
                if !rule.results {
                    all.extend(never_begun(folder));
                }
            }
            (true, Over::Published(one)) => match one.folder.audit().exists() && rule.replays {
                true => {
                    let why = "its rounds can be replayed, which takes all its adapters";
                    left.push((one.run.to_string(), why.to_owned()));
                }
                false => all.extend(of_run(&one, rule, &named)),
            },
        }
    }
    all.sort_by(|one, other| one.run.cmp(&other.run));
    left.sort();
    Ok((all, left))
}

/// A run that is over.
enum Over {
    /// Its members were complete.
    Published(Box<Published>),
    /// They never were.
    Never(RunDirectory),
}

impl Over {
    fn name(&self) -> String {
        match self {
            Self::Published(one) => one.run.to_string(),
            Self::Never(folder) => folder.run().map(|run| run.to_string()).unwrap_or_default(),
        }
    }
}

/// The adapters that exported folders were rolled back to.
fn rolled_back_to(store: &Store, key: &IdentityKey) -> Result<Vec<Digest>, PruneError> {
    let entries = audit_log::signed(store.root(), &key.public())?;
    let named = entries.into_iter().filter_map(|entry| match entry.event {
        Event::RolledBack { adapter, .. } => Some(adapter.adapter),
        _ => None,
    });
    Ok(named.collect())
}

/// What the rule removes of a run that is over and old; nothing where all of it stays.
fn of_run(one: &Published, rule: &PruneRule, named: &BTreeSet<Digest>) -> Option<RunPruning> {
    let folder = &one.folder;
    let all = one.adapters();
    let newest = all.last().map_or(0, |last| last.round);
    let mut pruning = RunPruning {
        run: one.run.to_string(),
        folder: folder.path().to_owned(),
        adapters: Vec::new(),
        others: Vec::new(),
        folders: Vec::new(),
    };
    let mut add = |path: PathBuf| {
        let name = path.strip_prefix(&pruning.folder).ok();
        if path.exists()
            && let Some(name) = name.and_then(Path::to_str)
        {
            pruning.others.push((name.to_owned(), size(&path)));
        }
    };
    for adapter in all {
        let needed = adapter.result || adapter.newest || adapter.round == 0;
        let recent = newest - adapter.round < rule.newest_rounds;
        if needed && rule.results || recent || named.contains(&adapter.adapter) {
            continue;
        }
        // The moments of the server's optimizer: a replay alone needs them.
        add(folder.server_state(adapter.round));
        if adapter.bytes.is_some() {
            pruning.folders.push(folder.adapter(adapter.round));
            pruning.adapters.push(adapter);
        }
    }
    if !rule.replays {
        add(folder.audit());
    }
    if !rule.evidence {
        add(folder.evidence());
    }
    let empty = pruning.adapters.is_empty() && pruning.others.is_empty();
    (!empty).then_some(pruning)
}

/// The whole folder of a run whose members were never complete.
fn never_begun(folder: RunDirectory) -> Option<RunPruning> {
    let bytes = size(folder.path());
    Some(RunPruning {
        run: folder.run()?.to_string(),
        folder: folder.path().to_owned(),
        adapters: Vec::new(),
        others: vec![(".".to_owned(), bytes)],
        folders: Vec::new(),
    })
}

/// Bytes of a file, or of all files in a folder.
fn size(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else {
        return 0;
    };
    if !found.is_dir() {
        return found.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// Why nothing more is removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A folder that cannot be read or removed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The audit log cannot be written, or does not verify.
    #[error("the audit log: {0}")]
    Log(#[from] LogError),
}
