//! What a run's folder proves of it, read back and verified: the signed plan, the roster, the chain of
//! signed results.

use std::io;

use fedlora_protocol::ids::{MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::plan::LossCurve;
use fedlora_protocol::receipt::{ReceiptError, RunReceipt, VerifiedRun, read_results, whole_lines};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::RoundResult;

use crate::run_directory::{RunDirectory, read_json};

/// A run whose members were complete.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// What it began with.
    pub receipt: RunReceipt,
    /// Its results, verified.
    pub verified: VerifiedRun,
    /// The same with their signatures, in the order of the rounds.
    pub signed: Vec<Unverified<RoundResult>>,
}

impl RunRecord {
    /// Reads and verifies what a run's folder holds; nothing before its members were complete.
    ///
    /// # Errors
    /// [`RunRecordError`] with the file's problem, or the first result that does not verify.
    pub fn read(folder: &RunDirectory) -> Result<Option<Self>, RunRecordError> {
        let Some(receipt) = read_json::<RunReceipt>(&folder.receipt())? else {
            return Ok(None);
        };
        let text = match std::fs::read(folder.results()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text?,
        };
        // A line that is being written, or that a crash cut off, is no result yet.
        let signed = read_results(whole_lines(&text))?;
        let verified = receipt.verify(signed.iter().cloned())?;
        Ok(Some(Self {
            receipt,
            verified,
            signed,
        }))
    }

    /// The round whose adapter is the run's result, if it ended now; 0 for the first adapter.
    pub fn best_round(&self) -> RoundNumber {
        let mut losses = LossCurve::new(&self.verified.plan.stopping);
        for result in &self.verified.results {
            let told = (&result.survivors[..], result.eval_loss);
            losses.advance(result.round, told, self.takes_back(result));
        }
        losses.best()
    }

    /// Whether a result takes the step before it back, by the members' votes.
    pub fn takes_back(&self, result: &RoundResult) -> bool {
        let rollback = &self.verified.plan.rollback;
        rollback.takes_back(result.round, result.survivors.len(), result.votes)
    }

    /// A member's name; nothing where the roster has no such member.
    pub fn name_of(&self, member: MemberIndex) -> Option<&MemberName> {
        Some(&self.receipt.roster.get(member)?.name)
    }

    /// The names of members, in their order.
    pub fn names_of(&self, members: &[MemberIndex]) -> Vec<MemberName> {
        let names = members.iter().filter_map(|member| self.name_of(*member));
        names.cloned().collect()
    }
}

/// Why a run's folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RunRecordError {
    /// A file that cannot be read, or is malformed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Results that do not verify.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}
