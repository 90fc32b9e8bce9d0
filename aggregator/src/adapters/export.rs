//! An adapter as a folder of its own: the PEFT files that Transformers, vLLM and llama.cpp load, and in
//! `fedlora/` what proves it: the signed plan, the roster, and the chain of signed results up to its own.
//! Whoever gets the folder verifies it without the operator.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_adapter::peft::{self, PeftError};
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, sync_parent, write_atomic};
use fedlora_protocol::receipt::{ReceiptError, RunReceipt, read_results};
use serde::Serialize;

use super::PublishedAdapter;
use crate::run_directory::RunDirectory;
use crate::run_record::{RunRecord, RunRecordError};
use crate::store::Store;

/// The folder of what proves an exported adapter.
const PROOF: &str = "fedlora";

/// An exported adapter, verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The adapter's digest, which its files have and the result names.
    pub adapter: Digest,
    /// The run's identifier, in hexadecimal.
    pub run: String,
    /// The round that it came of; 0 for the run's first adapter.
    pub round: u32,
    /// The fingerprint of the key that signed plan and results. Members know it.
    pub signed_by: Digest,
    /// The digest of the roster.
    pub roster: Digest,
}

/// Exports an adapter to a folder that is not there yet, and verifies what lies there then.
///
/// # Errors
/// [`ExportError`]; nothing is left at `to` then.
pub fn export(
    store: &Store,
    adapter: &PublishedAdapter,
    to: &Path,
) -> Result<Exported, ExportError> {
    if to.symlink_metadata().is_ok() {
        return Err(ExportError::Taken {
            path: to.to_owned(),
        });
    }
    let written = write(store, adapter, to).and_then(|()| exported(to));
    if written.is_err() && !matches!(written, Err(ExportError::Taken { .. })) {
        let _ = fs::remove_dir_all(to);
    }
    written
}

/// Verifies an exported folder: the chain of signatures, and that its files are the adapter that the last
/// result names. Needs no keys and no operator's directory.
///
/// # Errors
/// [`ExportError`] with what is wrong.
pub fn exported(folder: &Path) -> Result<Exported, ExportError> {
    let path = folder.join(PROOF).join("run.json");
    let unproven = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ExportError::NotExported {
            path: folder.to_owned(),
        },
        _ => in_file(&path, error),
    };
    let text = fs::read(&path).map_err(unproven)?;
    let receipt: RunReceipt = serde_json::from_slice(&text)
        .map_err(|error| in_file(&path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let path = folder.join(PROOF).join("results.jsonl");
    let text = fs::read(&path).map_err(|error| in_file(&path, error))?;
    let verified = read_results(&text).and_then(|results| receipt.verify(results));
    let verified = verified.map_err(|source| ExportError::Receipt {
        path: path.clone(),
        source,
    })?;
    let Some(last) = verified.results.last() else {
        return Err(ExportError::NotExported {
            path: folder.to_owned(),
        });
    };
    let (found, named) = (peft::load(folder)?.digest(), last.adapter);
    let round = match last.round.0 {
        round if found == named => round,
        // The first adapter is in what the first result is chained to.
        1 if found == receipt.first => 0,
        _ => {
            let path = folder.to_owned();
            return Err(ExportError::OtherAdapter { path, found, named });
        }
    };
    Ok(Exported {
        adapter: found,
        run: verified.run.to_string(),
        round,
        signed_by: receipt.aggregator.fingerprint(),
        roster: receipt.roster.digest(),
    })
}

/// Puts an adapter in the place of one that was exported to `at`. The new folder is whole and verified
/// before the other one goes; for a moment in between there is none.
///
/// # Errors
/// [`ExportError`], also where `at` is no exported adapter: nothing else is replaced.
pub fn replace(
    store: &Store,
    adapter: &PublishedAdapter,
    at: &Path,
) -> Result<Exported, ExportError> {
    exported(at)?;
    let [new, old] = ["new", "old"].map(|end| beside(at, end));
    for leftover in [&new, &old] {
        if leftover.symlink_metadata().is_ok() {
            return Err(ExportError::Taken {
                path: leftover.clone(),
            });
        }
    }
    let done = export(store, adapter, &new)?;
    let moved = fs::rename(at, &old).and_then(|()| {
        // The former one comes back where the new one cannot take its place.
        fs::rename(&new, at).inspect_err(|_| {
            let _ = fs::rename(&old, at);
        })
    });
    if let Err(error) = moved {
        let _ = fs::remove_dir_all(&new);
        return Err(in_file(at, error));
    }
    sync_parent(at).map_err(|error| in_file(at, error))?;
    fs::remove_dir_all(&old).map_err(|error| in_file(&old, error))?;
    Ok(done)
}

fn write(store: &Store, adapter: &PublishedAdapter, to: &Path) -> Result<(), ExportError> {
    let run = adapter.run.parse().ok();
    let folder = run.and_then(|run| RunDirectory::of(store, run));
    let folder = folder.ok_or_else(|| removed(adapter))?;
    let record = RunRecord::read(&folder)?.ok_or_else(|| removed(adapter))?;
    let from = folder.adapter(adapter.round);
    if !from.exists() {
        return Err(removed(adapter));
    }
    let loaded = peft::load(&from)?;
    let (found, named) = (loaded.digest(), adapter.adapter);
    if found != named {
        let path = from;
        return Err(ExportError::OtherAdapter { path, found, named });
    }
    let proof = to.join(PROOF);
    fs::create_dir(to)
        .and_then(|()| fs::create_dir(&proof))
        .map_err(|error| in_file(to, error))?;
    let receipt = serde_json::to_vec_pretty(&record.receipt);
    let receipt = receipt.map_err(|error| in_file(&proof, error.into()))?;
    let mut results = Vec::new();
    for result in record.signed.iter().take(adapter.round.max(1) as usize) {
        serde_json::to_writer(&mut results, result)
            .map_err(|error| in_file(&proof, error.into()))?;
        results.push(b'\n');
    }
    for (name, bytes) in [("run.json", &receipt), ("results.jsonl", &results)] {
        let path = proof.join(name);
        let written = write_atomic(&path, bytes, Access::Everyone);
        written.map_err(|error| in_file(&path, error))?;
    }
    // Its configuration comes last: a folder with one is whole.
    peft::save(to, &loaded, &adapter.base)?;
    Ok(())
}

fn removed(adapter: &PublishedAdapter) -> ExportError {
    ExportError::Removed {
        adapter: adapter.adapter,
        run: adapter.run.clone(),
        round: adapter.round,
    }
}

/// The path beside another, with an end to its name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(end);
    path.with_file_name(name)
}

fn in_file(path: &Path, source: io::Error) -> ExportError {
    let path = path.to_owned();
    ExportError::Io { path, source }
}

/// Why an adapter cannot be exported, or an exported one proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something lies there already.
    #[error("{} is there already", path.display())]
    Taken {
        /// Where the adapter would go.
        path: PathBuf,
    },
    /// The adapter's files are gone.
    #[error("the files of adapter {adapter}, of round {round} of run {run}, were removed")]
    Removed {
        /// The adapter.
        adapter: Digest,
        /// Its run.
        run: String,
        /// Its round.
        round: u32,
    },
    /// A folder without what proves an adapter.
    #[error("{} holds no exported adapter", path.display())]
    NotExported {
        /// The folder.
        path: PathBuf,
    },
    /// Files that are another adapter than the signed result names.
    #[error("{} is adapter {found}, but the signed result names {named}", path.display())]
    OtherAdapter {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: Digest,
        /// What should be.
        named: Digest,
    },
    /// Results that do not verify.
    #[error("{}: {source}", path.display())]
    Receipt {
        /// The file of results.
        path: PathBuf,
        /// The first place that is wrong.
        source: ReceiptError,
    },
    /// The run's own files cannot be read, or do not verify.
    #[error(transparent)]
    Run(#[from] RunRecordError),
    /// The adapter's files.
    #[error(transparent)]
    Peft(#[from] PeftError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
