//! What is published of a run, read from its folder: for a member that comes back after the run's end, and
//! for one that fetches an adapter. Needs no engine, and changes nothing.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use fedlora_adapter::Adapter;
use fedlora_adapter::peft::{self, PeftError};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::receipt::{ReceiptError, RunReceipt, read_results, whole_lines};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{RoundResult, ToMember};

use tokio::sync::Semaphore;

use crate::run_directory::{RunDirectory, RunEnding};
use crate::store::Store;

/// What a member fetches.
#[derive(Debug)]
pub(super) enum Held {
    /// An adapter, whose values travel.
    Adapter(Arc<Adapter>),
    /// The content of a file.
    File(Vec<u8>),
}

impl Held {
    /// What travels.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Adapter(adapter) => adapter.values_le(),
            Self::File(content) => Cow::Borrowed(content),
        }
    }
}

/// What is published of one run.
#[derive(Debug)]
pub(super) struct PublishedRun {
    directory: RunDirectory,
    /// Nothing where the run ended before its members were complete.
    receipt: Option<RunReceipt>,
    results: Vec<Unverified<RoundResult>>,
    end: Option<RunEnding>,
    /// One transfer at a time on a connection: each holds an adapter in memory.
    pub(super) transfers: Semaphore,
}

impl PublishedRun {
    /// Reads what there is of `run`; of the one that was begun last, where none is named. Nothing where
    /// there is no such run.
    ///
    /// # Errors
    /// A file that cannot be read, or is malformed.
    pub(super) fn read(
        operator: &Store,
        run: Option<RunId>,
    ) -> Result<Option<Self>, PublishedError> {
        let directory = match run {
            Some(run) => RunDirectory::of(operator, run),
            None => RunDirectory::newest(operator)?,
        };
        let Some(directory) = directory else {
            return Ok(None);
        };
        let receipt = if_there(std::fs::read(directory.receipt()))?;
        let receipt = receipt.map(|text| serde_json::from_slice(&text));
        let results = if_there(std::fs::read(directory.results()))?.unwrap_or_default();
        Ok(Some(Self {
            receipt: receipt.transpose()?,
            results: read_results(whole_lines(&results))?,
            end: directory.end()?,
            directory,
            transfers: Semaphore::new(1),
        }))
    }

    /// Whether the run is over.
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Plan, roster and results in order; nothing where the run never began.
    pub(super) fn messages(&self) -> Vec<ToMember> {
        let Some(receipt) = &self.receipt else {
            return Vec::new();
        };
        let mut messages = vec![ToMember::Plan(receipt.plan.clone())];
        messages.push(ToMember::Roster(receipt.roster.clone()));
        messages.extend(self.results.iter().cloned().map(ToMember::Result));
        messages
    }

    /// How the run ended; nothing where it goes on.
    pub(super) fn finished(&self) -> Option<ToMember> {
        let end = self.end.as_ref()?;
        Some(ToMember::Finished {
            failure: end.failure.clone(),
        })
    }

    /// A published adapter; nothing where none has this digest.
    ///
    /// # Errors
    /// An adapter that cannot be read, or is not what the result names.
    pub(super) fn adapter(&self, digest: &Digest) -> Result<Option<Held>, PublishedError> {
        let found = self.find(digest)?;
        Ok(found.map(|(_, adapter)| Held::Adapter(Arc::new(adapter))))
    }

    /// The file of weights of a published adapter; nothing where none has this digest.
    ///
    /// # Errors
    /// As [`adapter`](Self::adapter).
    pub(super) fn weights(&self, digest: &Digest) -> Result<Option<Held>, PublishedError> {
        let Some((folder, _)) = self.find(digest)? else {
            return Ok(None);
        };
        let file = std::fs::read(folder.join(peft::WEIGHTS_FILE))?;
        Ok(Some(Held::File(file)))
    }

    fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, Adapter)>, PublishedError> {
        let first = self.receipt.as_ref().map(|receipt| (0, receipt.first));
        let named = self.results.iter().map(|result| {
            let body = result.claimed();
            (body.round.0, body.adapter)
        });
        let Some((round, _)) = first
            .into_iter()
            .chain(named)
            .find(|(_, one)| one == digest)
        else {
            return Ok(None);
        };
        let folder = self.directory.adapter(round);
        if !folder.exists() {
            return Ok(None);
        }
        let adapter = peft::load(&folder)?;
        if adapter.digest() != *digest {
            return Err(PublishedError::OtherAdapter { round });
        }
        Ok(Some((folder, adapter)))
    }
}

fn if_there(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Why what is published cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishedError {
    /// A file that cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A malformed receipt.
    #[error("run.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A malformed result.
    #[error("results.jsonl: {0}")]
    Results(#[from] ReceiptError),
    /// An adapter's files.
    #[error(transparent)]
    Adapter(#[from] PeftError),
    /// An adapter that is not what the round's result names.
    #[error("the adapter of round {round} is not the one that its result names")]
    OtherAdapter {
        /// The round.
        round: u32,
    },
}
