//! The signed results of a run once more: signatures, chain, and the adapters that they name. Needs no
//! record that was kept for an audit, and no keys.

use fedlora_adapter::peft;
use fedlora_protocol::receipt::{RunReceipt, VerifiedRun, read_results, whole_lines};
use serde::Serialize;

use super::{AuditError, read, read_json};
use crate::run_directory::RunDirectory;

/// What is proven of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedReport {
    /// The run.
    pub run: String,
    /// Rounds of the plan.
    pub planned: u32,
    /// Rounds with a signed result.
    pub rounds: usize,
    /// Adapters on the disk that are the ones which results name.
    pub adapters: usize,
    /// The digest that stands for plan, roster and all results.
    pub head: String,
    /// Eight words for it: members' `fedlora runs` shows the same.
    pub words: String,
}

/// Verifies a run's signed results, and that the adapters on the disk are the ones that they name.
///
/// # Errors
/// [`AuditError::Receipt`] with the first place that is wrong, [`AuditError::OtherAdapter`] naming
/// the folder; and what cannot be read.
pub fn verify(directory: &RunDirectory) -> Result<VerifiedReport, AuditError> {
    let (verified, adapters) = verified(directory)?;
    Ok(VerifiedReport {
        run: verified.run.to_string(),
        planned: verified.plan.rounds,
        rounds: verified.results.len(),
        adapters,
        head: verified.head.to_string(),
        words: verified.words().to_string(),
    })
}

/// The same, without the words, which take a while to compute. Gives how many adapters on the disk are
/// the ones that results name, too.
///
/// # Errors
/// As [`verify`].
pub fn verified(directory: &RunDirectory) -> Result<(VerifiedRun, usize), AuditError> {
    let receipt: RunReceipt = read_json(&directory.receipt())?;
    let path = directory.results();
    let text = match read(&path) {
        Err(AuditError::NotKept { .. }) => Vec::new(),
        text => text?,
    };
    let wrong = |error| AuditError::Receipt {
        path: path.clone(),
        error,
    };
    // A line that a crash cut off is written again when the run goes on.
    let results = read_results(whole_lines(&text)).map_err(wrong)?;
    let verified = receipt.verify(results).map_err(wrong)?;
    let mut adapters = 0;
    for result in &verified.results {
        let path = directory.adapter(result.round.0);
        if !path.exists() {
            continue;
        }
        if peft::load(&path)?.digest() != result.adapter {
            return Err(AuditError::OtherAdapter { path });
        }
        adapters += 1;
    }
    Ok((verified, adapters))
}
