//! Whether evidence that the aggregator kept proves that a member broke the protocol.

use std::path::Path;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::plan::Roster;
use fedlora_protocol::round::evidence::{Breach, Evidence};
use serde::Serialize;

use super::{AuditError, read_json};
use crate::run_directory::RunDirectory;
use crate::store::Store;

/// What a file of evidence proves to anybody with the roster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvidenceVerdict {
    /// The run's id in hex, as the evidence has it.
    pub run: String,
    /// The round.
    pub round: RoundNumber,
    /// The attempt at it.
    pub attempt: Attempt,
    /// The digest of the roster by which signatures were checked. Who checks compares it with the
    /// one that the members accepted.
    pub roster: Digest,
    /// Whether the evidence proves something.
    pub proven: bool,
    /// The member that broke the protocol; none where nothing is proven.
    pub member: Option<MemberName>,
    /// What it did, or is said to have done.
    pub breach: String,
    /// Why nothing is proven; none where something is.
    pub reason: Option<String>,
}

/// Checks a file of evidence against the roster of its run, in the operator's directory.
///
/// # Errors
/// [`AuditError`] where the file is no evidence, or its run has no roster there.
pub fn check_evidence(operator: &Store, file: &Path) -> Result<EvidenceVerdict, AuditError> {
    let evidence: Evidence = read_json(file)?;
    let run = evidence.open.run.to_string();
    let directory = RunDirectory::find(operator, Some(&run))?;
    let roster: Roster = read_json(&directory.roster())?;
    let checked = evidence.check(&roster);
    let (member, reason) = match checked {
        Ok(member) => (roster.get(member), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Ok(EvidenceVerdict {
        run,
        round: evidence.open.round,
        attempt: evidence.open.attempt,
        roster: roster.digest(),
        proven: checked.is_ok(),
        member: member.map(|entry| entry.name.clone()),
        breach: breach(&evidence.breach, &roster),
        reason,
    })
}

fn breach(breach: &Breach, roster: &Roster) -> String {
    let name = |member: MemberIndex| match roster.get(member) {
        Some(entry) => entry.name.to_string(),
        None => member.to_string(),
    };
    match breach {
        Breach::ForgedShare { owner, .. } => format!(
            "revealed another share of {}'s secret than it said that it holds",
            name(*owner)
        ),
        Breach::InconsistentDeal { .. } => {
            "dealt shares that do not recover the secret that it committed to".to_owned()
        }
    }
}
