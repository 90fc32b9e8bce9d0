//! What a member keeps of each run to show it later: `runs/ID` in its directory, with the signed plan,
//! the roster and the signed results ([`fedlora_protocol::receipt`]).
//!
//! A member that restarts is shown all results again. Those must be the ones that it has: an aggregator
//! that tells a member another history than before is caught, with both in hand.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, beside, create_private_folder, write_atomic};
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::receipt::{ReceiptError, RunReceipt, VerifiedRun, read_results, whole_lines};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::RoundResult;

/// Where receipts are kept.
pub trait Receipts: Debug {
    /// Takes what a run begins with.
    ///
    /// # Errors
    /// [`ReceiptsError`] where it is not what the run began with before, or cannot be written.
    fn run(&mut self, receipt: RunReceipt) -> Result<(), ReceiptsError>;

    /// Takes a result of that run, whose signature was checked.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn result(&mut self, result: Unverified<RoundResult>) -> Result<(), ReceiptsError>;

    /// Notes that the member holds the adapter of a result of that run, and has checked its step.
    ///
    /// # Errors
    /// [`ReceiptsError::Io`] where it cannot be written.
    fn held(&mut self, adapter: &Digest) -> Result<(), ReceiptsError>;

    /// Whether this member has held the adapter in a run of `aggregator`'s, whose signed results name it.
    /// Receipts that do not verify show nothing.
    ///
    /// # Errors
    /// [`ReceiptsError::Io`] where they cannot be read.
    fn has_held(
        &self,
        aggregator: &IdentityPublic,
        adapter: &Digest,
    ) -> Result<bool, ReceiptsError>;
}

/// Keeps nothing: for a simulation.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReceipts;

impl Receipts for NoReceipts {
    fn run(&mut self, _: RunReceipt) -> Result<(), ReceiptsError> {
        Ok(())
    }

    fn result(&mut self, _: Unverified<RoundResult>) -> Result<(), ReceiptsError> {
        Ok(())
    }

    fn held(&mut self, _: &Digest) -> Result<(), ReceiptsError> {
        Ok(())
    }

    fn has_held(&self, _: &IdentityPublic, _: &Digest) -> Result<bool, ReceiptsError> {
        Ok(false)
    }
}

/// Keeps them in a folder of runs.
#[derive(Debug)]
pub struct FileReceipts {
    runs: PathBuf,
    current: Option<Current>,
}

/// The run that results are taken of.
#[derive(Debug)]
struct Current {
    folder: PathBuf,
    results: Vec<Unverified<RoundResult>>,
}

const RUN: &str = "run.json";
const RESULTS: &str = "results.jsonl";
/// The digests of the adapters that were held, one a line.
const HELD: &str = "held.txt";

impl FileReceipts {
    /// Receipts below the folder `runs`, which need not exist.
    pub fn new(runs: PathBuf) -> Self {
        Self {
            runs,
            current: None,
        }
    }
}

impl Receipts for FileReceipts {
    fn run(&mut self, receipt: RunReceipt) -> Result<(), ReceiptsError> {
        let run = receipt.verify([])?.run;
        let folder = self.runs.join(run.to_string());
        let path = folder.join(RUN);
        match read_if_there(&path)? {
            Some(text) => {
                if parse(&path, &text)? != receipt {
                    return Err(ReceiptsError::OtherRun { path });
                }
            }
            None => {
                create_private_folder(&folder).map_err(|error| io_error(&folder, error))?;
                let text = serde_json::to_vec_pretty(&receipt).expect("text keys");
                write_atomic(&path, &text, Access::Owner)
                    .map_err(|error| io_error(&path, error))?;
            }
        }
        let path = folder.join(RESULTS);
        let results = whole_results(&path)?;
        // What is compared with later results was signed, and in this order.
        let verified = receipt.verify(results.clone());
        verified.map_err(|error| wrong(&path, error))?;
        self.current = Some(Current { folder, results });
        Ok(())
    }

    fn result(&mut self, result: Unverified<RoundResult>) -> Result<(), ReceiptsError> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let path = current.folder.join(RESULTS);
        let round = result.claimed().round;
        let place = (round.0 as usize).saturating_sub(1);
        if let Some(before) = current.results.get(place) {
            if *before == result {
                return Ok(());
            }
            // Both are signed: kept, it proves that the aggregator told two histories.
            let proof = beside(&path, ".contradiction").map_err(|error| io_error(&path, error))?;
            let both = serde_json::to_vec_pretty(&[before, &result]).expect("text keys");
            write_atomic(&proof, &both, Access::Owner).map_err(|error| io_error(&proof, error))?;
            return Err(ReceiptsError::OtherResult { round, proof });
        }
        let mut line = serde_json::to_vec(&result).expect("text keys");
        line.push(b'\n');
        append(&path, &line).map_err(|error| io_error(&path, error))?;
        current.results.push(result);
        Ok(())
    }

    fn held(&mut self, adapter: &Digest) -> Result<(), ReceiptsError> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        // All of a run's results come again after each restart.
        if holds(&current.folder, adapter)? {
            return Ok(());
        }
        let path = current.folder.join(HELD);
        let line = format!("{adapter}\n");
        append(&path, line.as_bytes()).map_err(|error| io_error(&path, error))
    }

    fn has_held(
        &self,
        aggregator: &IdentityPublic,
        adapter: &Digest,
    ) -> Result<bool, ReceiptsError> {
        for folder in folders(&self.runs)? {
            if !holds(&folder, adapter)? {
                continue;
            }
            let Ok(kept) = verify(&folder) else { continue };
            let mut results = kept.verified.results.iter();
            let named = results.any(|result| result.adapter == *adapter);
            if named && kept.receipt.aggregator == *aggregator {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// One run of a member, verified.
#[derive(Debug)]
pub struct KeptRun {
    /// What it began with.
    pub receipt: RunReceipt,
    /// What is proven of it.
    pub verified: VerifiedRun,
}

/// Reads and verifies the receipts in one run's folder.
///
/// # Errors
/// [`ReceiptsError`] naming the file and the place.
pub fn verify(folder: &Path) -> Result<KeptRun, ReceiptsError> {
    let path = folder.join(RUN);
    let text = fs::read(&path).map_err(|error| io_error(&path, error))?;
    let receipt = parse(&path, &text)?;
    let path = folder.join(RESULTS);
    let text = read_if_there(&path)?.unwrap_or_default();
    let results = read_results(whole_lines(&text)).map_err(|error| wrong(&path, error))?;
    let verified = receipt.verify(results);
    let verified = verified.map_err(|error| wrong(&path, error))?;
    Ok(KeptRun { receipt, verified })
}

/// The folders of a member's runs, the last one that was taken part in at the end.
///
/// # Errors
/// [`ReceiptsError::Io`] where they cannot be read.
pub fn folders(runs: &Path) -> Result<Vec<PathBuf>, ReceiptsError> {
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| io_error(runs, error))?,
    };
    let folders = entries.flatten().map(|entry| entry.path());
    let mut folders: Vec<_> = folders
        .filter(|path| path.join(RUN).is_file())
        .map(|path| {
            let begun = fs::metadata(path.join(RUN)).and_then(|one| one.modified());
            (begun.ok(), path)
        })
        .collect();
    folders.sort();
    Ok(folders.into_iter().map(|(_, path)| path).collect())
}

/// The results in a file. A line that a crash cut off is removed: the aggregator shows it again.
fn whole_results(path: &Path) -> Result<Vec<Unverified<RoundResult>>, ReceiptsError> {
    let text = read_if_there(path)?.unwrap_or_default();
    let whole = whole_lines(&text);
    let results = read_results(whole).map_err(|error| wrong(path, error))?;
    if whole.len() < text.len() {
        cut(path, whole.len()).map_err(|error| io_error(path, error))?;
    }
    Ok(results)
}

/// Needs no space.
fn cut(path: &Path, length: usize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(length as u64)?;
    file.sync_all()
}

/// Whether the member has noted in a run's folder that it held this adapter.
fn holds(folder: &Path, adapter: &Digest) -> Result<bool, ReceiptsError> {
    let text = read_if_there(&folder.join(HELD))?.unwrap_or_default();
    let digest = adapter.to_string();
    let mut lines = text.split(|byte| *byte == b'\n');
    Ok(lines.any(|line| line == digest.as_bytes()))
}

/// Appends a line, or leaves the file as it was.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    if !path.exists() {
        // With the mode of what is its owner's alone.
        return write_atomic(path, line, Access::Owner);
    }
    let mut file = OpenOptions::new().append(true).open(path)?;
    let before = file.metadata()?.len();
    let written = file.write_all(line).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = file.set_len(before);
    }
    written
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, ReceiptsError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<RunReceipt, ReceiptsError> {
    serde_json::from_slice(text).map_err(|error| ReceiptsError::Json {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn wrong(path: &Path, error: ReceiptError) -> ReceiptsError {
    ReceiptsError::Wrong {
        path: path.to_owned(),
        error,
    }
}

fn io_error(path: &Path, source: io::Error) -> ReceiptsError {
    ReceiptsError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Why receipts cannot be kept, or prove nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptsError {
    /// A run that began otherwise before.
    #[error(
        "the aggregator shows another plan, roster or first adapter for this run than before: see {}",
        path.display()
    )]
    OtherRun {
        /// The receipt of what it showed first.
        path: PathBuf,
    },
    /// A round that had another result before.
    #[error(
        "the aggregator signed two results for round {round}: both are in {}",
        proof.display()
    )]
    OtherResult {
        /// The round.
        round: RoundNumber,
        /// The file with both.
        proof: PathBuf,
    },
    /// What a run begins with does not verify.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// Receipts that were changed, cut or moved.
    #[error("{}: {error}", path.display())]
    Wrong {
        /// The file of results.
        path: PathBuf,
        /// The place and what is wrong there.
        error: ReceiptError,
    },
    /// A receipt that does not parse.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The receipt that does not parse.
        path: PathBuf,
        /// The parser's words.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder that cannot be read or written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use fedlora_common::digest::Digest;
    use fedlora_protocol::crypto::sign::IdentityKey;
    use fedlora_protocol::ids::{Attempt, MemberIndex, RunId};
    use fedlora_protocol::plan::{Roster, RosterEntry, RunPlan, SignedPlan};
    use fedlora_protocol::wire::Verified;

    use super::*;

    fn key() -> IdentityKey {
        IdentityKey::from_bytes(&[9; 32])
    }

    fn begun() -> (RunReceipt, Digest) {
        let plan = RunPlan::from_toml(
            "rounds = 9\nmembers = 3\n[adapter]\n\
             lora = { rank = 2, alpha = 4.0, dropout = 0.0, targets = [\"q\"] }\n",
        )
        .unwrap();
        let run = RunId([1; 16]);
        let entry = |number: u8| RosterEntry {
            name: format!("m{number}").parse().unwrap(),
            identity: IdentityKey::from_bytes(&[number; 32]).public(),
            certificate_key: Digest::from_bytes([number; 32]),
        };
        let roster = Roster::new((1..=3).map(entry).collect()).unwrap();
        let first = Digest::from_bytes([4; 32]);
        let start = RoundResult::chain_start(run, &plan.digest(), &roster.digest(), &first);
        let receipt = RunReceipt {
            aggregator: key().public(),
            plan: SignedPlan::sign(run, plan, &key()),
            roster,
            first,
        };
        (receipt, start)
    }

    fn result(round: u32, weight: u64, previous: &mut Digest) -> Unverified<RoundResult> {
        let result = RoundResult {
            run: RunId([1; 16]),
            round: RoundNumber(round),
            attempt: Attempt(1),
            adapter: Digest::from_bytes([2; 32]),
            sum: Digest::from_bytes([2; 32]),
            total_weight: weight,
            transcript: Digest::from_bytes([3; 32]),
            previous: *previous,
            survivors: vec![MemberIndex(0)],
            dropped: Vec::new(),
            train_loss: None,
            eval_loss: None,
            clipped: None,
            votes: None,
        };
        let signed = Verified::sign(result, &key(), previous);
        *previous = signed.body().digest();
        signed.unverified().clone()
    }

    #[test]
    fn receipts_are_kept_over_restarts_and_verified() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        assert!(folders(&runs).unwrap().is_empty());
        let (receipt, mut head) = begun();
        let results = [1, 2, 3].map(|round| result(round, 1, &mut head));
        let mut receipts = FileReceipts::new(runs.clone());
        receipts.run(receipt.clone()).unwrap();
        for result in &results[..2] {
            receipts.result(result.clone()).unwrap();
        }
        let own = folders(&runs).unwrap().remove(0);
        // As a crash leaves it: the third is cut off. It and all others are shown again.
        let path = own.join(RESULTS);
        let mut text = fs::read(&path).unwrap();
        text.extend(&serde_json::to_vec(&results[2]).unwrap()[..50]);
        fs::write(&path, text).unwrap();
        let mut again = FileReceipts::new(runs.clone());
        again.run(receipt.clone()).unwrap();
        for result in &results {
            again.result(result.clone()).unwrap();
        }
        let kept = verify(&own).unwrap();
        assert_eq!((kept.receipt, kept.verified.head), (receipt, head));
        assert_eq!(kept.verified.rounds_of(MemberIndex(0)), 3);
        // Any edit is found where it is.
        let text = fs::read_to_string(&path).unwrap();
        let second = text.lines().nth(1).unwrap();
        fs::write(&path, text.replace(second, "")).unwrap();
        let error = verify(&own).unwrap_err().to_string();
        assert!(error.contains("results.jsonl: result 2"), "{error}");
    }

    #[test]
    fn an_adapter_was_held_where_a_signed_result_names_it_and_its_step_was_checked() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let mut receipts = FileReceipts::new(runs.clone());
        let (adapter, other) = (Digest::from_bytes([2; 32]), Digest::from_bytes([4; 32]));
        let held = |adapter: &Digest| {
            let receipts = FileReceipts::new(runs.clone());
            receipts.has_held(&key().public(), adapter).unwrap()
        };
        assert!(!held(&adapter));
        let (receipt, mut head) = begun();
        receipts.run(receipt).unwrap();
        receipts.result(result(1, 1, &mut head)).unwrap();
        // The result names it; its step may have been refused.
        assert!(!held(&adapter));
        for adapter in [&adapter, &other, &adapter] {
            receipts.held(adapter).unwrap();
        }
        let own = folders(&runs).unwrap().remove(0);
        let noted = fs::read_to_string(own.join(HELD)).unwrap();
        assert_eq!(noted, format!("{adapter}\n{other}\n"));
        // No result names the other.
        assert!(held(&adapter) && !held(&other));
        let stranger = IdentityKey::from_bytes(&[8; 32]).public();
        assert!(!receipts.has_held(&stranger, &adapter).unwrap());
        // Receipts that do not verify show nothing.
        let path = own.join(RESULTS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            text.replace("\"total_weight\":1", "\"total_weight\":2"),
        )
        .unwrap();
        assert!(!held(&adapter));
    }

    #[test]
    fn another_history_than_before_is_refused_and_proven() {
        let folder = tempfile::tempdir().unwrap();
        let (receipt, start) = begun();
        let mut receipts = FileReceipts::new(folder.path().to_owned());
        receipts.run(receipt.clone()).unwrap();
        receipts.result(result(1, 1, &mut start.clone())).unwrap();
        let mut again = FileReceipts::new(folder.path().to_owned());
        let other = RunReceipt {
            first: Digest::from_bytes([5; 32]),
            ..receipt.clone()
        };
        let refused = again.run(other).unwrap_err();
        assert!(matches!(refused, ReceiptsError::OtherRun { .. }));
        again.run(receipt).unwrap();
        let refused = again.result(result(1, 2, &mut start.clone())).unwrap_err();
        let ReceiptsError::OtherResult { round, proof } = refused else {
            panic!("two results for a round: {refused}");
        };
        assert_eq!(round, RoundNumber(1));
        let both: Vec<Unverified<RoundResult>> =
            serde_json::from_slice(&fs::read(proof).unwrap()).unwrap();
        for one in &both {
            one.clone().verify(&key().public(), &start).unwrap();
        }
        assert_ne!(both[0], both[1]);
    }
}
