//! Removing the files of adapters that nobody needs: of runs that are over, and neither a run's result
//! nor its newest. The signed results stay, and say what there was.

use std::io;
use std::path::PathBuf;

use fedlora_common::clock::Timestamp;
use serde::Serialize;

use super::{PublishedAdapter, PublishedRuns, published};
use crate::store::Store;

/// Which adapters stay, beside each run's result and newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneRule {
    /// So many of each run's newest rounds.
    pub keep: u32,
    /// All of runs that ended later than this.
    pub ended_before: Timestamp,
}

/// What went, or would go.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Pruned {
    /// The adapters, with their sizes before.
    pub removed: Vec<PublishedAdapter>,
    /// Bytes of their weights.
    pub bytes: u64,
    /// Runs that were left as they are, and why.
    pub left: Vec<(String, String)>,
}

/// Removes adapters by the rule; with `pretend` only tells which.
///
/// # Errors
/// [`PruneError`] with the folder that cannot be read or removed. What was removed before is gone.
pub fn prune(store: &Store, rule: &PruneRule, pretend: bool) -> Result<Pruned, PruneError> {
    let in_folder = |(path, source)| PruneError { path, source };
    let PublishedRuns { runs, unreadable } = published(store).map_err(in_folder)?;
    let mut pruned = Pruned::default();
    for (run, why) in unreadable {
        let why = format!("its files cannot be read: {why}");
        pruned.left.push((run, why));
    }
    for one in runs {
        let run = one.run.to_string();
        let Some(ended) = one.ended else {
            pruned.left.push((run, "it is not over".to_owned()));
            continue;
        };
        if ended >= rule.ended_before {
            let why = "it ended too short a time ago".to_owned();
            pruned.left.push((run, why));
            continue;
        }
        if one.folder.audit().exists() {
            let why = "its rounds can be replayed, which takes all its adapters".to_owned();
            pruned.left.push((run, why));
            continue;
        }
        let adapters = one.adapters();
        let newest = adapters.last().map_or(0, |last| last.round);
        for adapter in adapters {
            let needed = adapter.result || adapter.newest || adapter.round == 0;
            let recent = newest - adapter.round < rule.keep;
            let Some(bytes) = adapter.bytes.filter(|_| !needed && !recent) else {
                continue;
            };
            if !pretend {
                let path = one.folder.adapter(adapter.round);
                let gone = store.remove_folder(&path);
                gone.map_err(|source| PruneError { path, source })?;
            }
            pruned.bytes += bytes;
            pruned.removed.push(adapter);
        }
    }
    Ok(pruned)
}

/// A folder that cannot be read or removed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct PruneError {
    path: PathBuf,
    source: io::Error,
}
