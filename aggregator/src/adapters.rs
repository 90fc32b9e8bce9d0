//! The adapters that were published, over all runs: found by their digests, exported with what proves
//! them, put in the place of later ones, and removed where nobody needs them any more.
//!
//! A signed result is never undone. What is exported can be changed; what was published stays as it was
//! signed, and only its files may go.

mod export;
mod prune;
mod start;

use std::io;
use std::path::PathBuf;

use fedlora_adapter::peft::WEIGHTS_FILE;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RunId};
use serde::Serialize;

use crate::audit::RecordFolder;
use crate::run_directory::RunDirectory;
use crate::run_record::RunRecord;
use crate::store::Store;

pub use export::{ExportError, Exported, export, exported, replace};
pub use prune::{PruneError, PruneRule, Pruned, prune, would_prune};
pub(crate) use start::starts;
pub use start::{StartError, StartingAdapter};

/// An adapter that a signed result names, or the first adapter of a run whose result it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PublishedAdapter {
    /// Its digest.
    pub adapter: Digest,
    /// The run's identifier, in hexadecimal.
    pub run: String,
    /// The round that it came of; 0 for the run's first adapter.
    pub round: u32,
    /// Whether it is the run's result, as far as the run has come.
    pub result: bool,
    /// Whether it is the run's newest.
    pub newest: bool,
    /// What `base_model_name_or_path` says in it; may be empty.
    pub base: String,
    /// Its pooled validation loss in nats a token, which the next round's result tells; nothing where
    /// none was told.
    pub validation_loss: Option<f32>,
    /// The members in its round's sum; none for a first adapter.
    pub survivors: Vec<MemberName>,
    /// The other members of its run.
    pub dropped: Vec<MemberName>,
    /// The fingerprint of the key that signed plan and result.
    pub signed_by: Digest,
    /// When its run ended; nothing where that goes on.
    pub run_ended: Option<Timestamp>,
    /// Bytes of its weights; nothing where its files were removed.
    pub bytes: Option<u64>,
}

/// The published adapters of an operator's directory.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Adapters {
    /// By run in the order in which these began, then by round.
    pub adapters: Vec<PublishedAdapter>,
    /// Runs whose files cannot be read or do not verify, and why.
    pub unreadable: Vec<(String, String)>,
}

/// All runs that published something.
#[derive(Debug)]
struct PublishedRuns {
    /// In the order in which they began.
    runs: Vec<Published>,
    /// Runs whose files cannot be read or do not verify, and why.
    unreadable: Vec<(String, String)>,
}

/// A run with its verified results.
#[derive(Debug)]
struct Published {
    run: RunId,
    folder: RunDirectory,
    record: RunRecord,
    /// When it ended, where it is over.
    ended: Option<Timestamp>,
}

impl Adapters {
    /// All of them, from results that are verified one by one. The adapters' files are not read.
    ///
    /// # Errors
    /// The folder of runs, where it cannot be read.
    pub fn read(store: &Store) -> Result<Self, (PathBuf, io::Error)> {
        let PublishedRuns { runs, unreadable } = published(store)?;
        let adapters = runs.iter().flat_map(Published::adapters).collect();
        Ok(Self {
            adapters,
            unreadable,
        })
    }

    /// The one whose digest begins like this, in hexadecimal. Where several runs came to one adapter, the
    /// newest of these; a run that only begins from it comes last.
    ///
    /// # Errors
    /// [`NotFound`] where there is none, or several begin so.
    pub fn find(&self, digest: &str) -> Result<&PublishedAdapter, NotFound> {
        let asked = digest.to_ascii_lowercase();
        let begins = |one: &&PublishedAdapter| {
            !asked.is_empty() && one.adapter.to_string().starts_with(&asked)
        };
        let found: Vec<_> = self.adapters.iter().filter(begins).collect();
        let came_to = found.iter().rev().find(|one| one.round > 0);
        match came_to.or(found.last()) {
            None => Err(NotFound::None { digest: asked }),
            Some(last) if found.iter().all(|one| one.adapter == last.adapter) => Ok(last),
            Some(_) => Err(NotFound::Several { digest: asked }),
        }
    }
}

/// All runs whose members were complete, in the order in which they began; and those that cannot be read.
fn published(store: &Store) -> Result<PublishedRuns, (PathBuf, io::Error)> {
    let mut runs = Vec::new();
    let mut unreadable = Vec::new();
    for folder in RunDirectory::all(store)? {
        let Some(run) = folder.run() else { continue };
        let read = RunRecord::read(&folder).map_err(|error| error.to_string());
        let read = read.and_then(|record| {
            let end = folder.end().map_err(|error| format!("end.json: {error}"))?;
            Ok(record.map(|record| (record, end)))
        });
        match read {
            // Its members were not complete.
            Ok(None) => {}
            Ok(Some((record, end))) => {
                let open = RecordFolder::of_open_run(&folder).is_some();
                let begun = std::fs::metadata(folder.receipt()).and_then(|file| file.modified());
                let ended = end.filter(|_| !open).map(|end| end.at);
                let one = Published {
                    run,
                    folder,
                    record,
                    ended,
                };
                runs.push((begun.ok(), one));
            }
            Err(error) => unreadable.push((run.to_string(), error)),
        }
    }
    runs.sort_by_key(|(begun, one)| (*begun, one.run));
    Ok(PublishedRuns {
        runs: runs.into_iter().map(|(_, one)| one).collect(),
        unreadable,
    })
}

impl Published {
    /// The adapters that its results name, and the first one where that is its result.
    fn adapters(&self) -> Vec<PublishedAdapter> {
        let verified = &self.record.verified;
        let results = &verified.results;
        let best = self.record.best_round().0;
        let newest = results.len() as u32;
        let told = |round: u32| results.get(round as usize).and_then(|next| next.eval_loss);
        let of = |round: u32, adapter: Digest| PublishedAdapter {
            adapter,
            run: self.run.to_string(),
            round,
            result: !results.is_empty() && round == best,
            newest: round == newest,
            base: verified.plan.base.name.clone(),
            validation_loss: told(round),
            survivors: Vec::new(),
            dropped: Vec::new(),
            signed_by: self.record.receipt.aggregator.fingerprint(),
            run_ended: self.ended,
            bytes: self.bytes(round),
        };
        let first = of(0, self.record.receipt.first);
        let first = (first.bytes.is_some() || first.result).then_some(first);
        let others = results.iter().map(|result| PublishedAdapter {
            survivors: self.record.names_of(&result.survivors),
            dropped: self.record.names_of(&result.dropped),
            ..of(result.round.0, result.adapter)
        });
        first.into_iter().chain(others).collect()
    }

    /// Bytes of an adapter's weights, where they are there.
    fn bytes(&self, round: u32) -> Option<u64> {
        let path = self.folder.adapter(round).join(WEIGHTS_FILE);
        Some(std::fs::metadata(path).ok()?.len())
    }
}

/// Why no adapter is found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No result names such a one.
    #[error("no published adapter has a digest that begins with {digest:?}")]
    None {
        /// What was asked for.
        digest: String,
    },
    /// Several begin so.
    #[error("several published adapters have digests that begin with {digest:?}")]
    Several {
        /// What was asked for.
        digest: String,
    },
}

#[cfg(test)]
mod tests;
