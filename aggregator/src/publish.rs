//! Step 10 of the round: from the unmasked sum to the next global adapter, in PEFT's form,
//! with a signed result that is chained to the one before.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use fedlora_adapter::{Adapter, AdapterError, Layout, peft};
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::fixed::{RoundSum, RoundSumError, SpoiltGroup, WeightedMean};
use fedlora_protocol::ids::{MemberIndex, RoundNumber};
use fedlora_protocol::plan::{RollbackPlan, Roster, RunPlan};
use fedlora_protocol::receipt::RunReceipt;
use fedlora_protocol::round::evidence::Evidence;
use fedlora_protocol::wire::messages::{Open, RoundResult};
use fedlora_protocol::wire::{Unverified, Verified};

use crate::optimizer::{ScaledStep, ServerOptimizer, ServerStep, StateError, StateOf};
use crate::run_directory::RunDirectory;

/// What the rounds of a run advance.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalState {
    /// The global adapter. States that have it in common hold it once.
    pub adapter: Arc<Adapter>,
    /// The server's optimizer.
    pub optimizer: ServerOptimizer,
}

/// A round's step, applied.
#[derive(Debug)]
pub struct Applied {
    /// Adapter and optimizer after the round.
    pub state: GlobalState,
    /// Whether the members' votes took the step before back, in place of the mean's.
    pub taken_back: bool,
    /// Where the step was longer than the plan allows.
    pub scaled: Option<ScaledStep>,
    /// What is told of losses and clipping beside the mean. The mean itself is in the step: there are
    /// no values here.
    pub mean: WeightedMean,
    /// Groups whose sums are none, and were left out.
    pub spoilt: Vec<SpoiltGroup>,
}

/// Decodes the unmasked sums into the round's mean, and adds the step that the optimizer makes of
/// it to `part` of the global adapter, the layout of the factors that the round trained. In a robust
/// round the mean is the groups' means, combined.
///
/// Where enough members vote for that by `rollback`, the mean is left out: the adapter goes most of
/// the way back to the one of `former`, the state before the newest step, and the optimizer becomes
/// that one's. It is asked for then alone.
///
/// # Errors
/// [`PublishError::Sum`] for sums that give no mean, [`PublishError::Adapter`] for values that are
/// no longer finite; and those of `former`.
pub fn apply(
    state: &GlobalState,
    former: impl FnOnce() -> Result<Option<GlobalState>, PublishError>,
    rollback: &RollbackPlan,
    part: &Layout,
    open: &Open,
    sum: &RoundSum,
) -> Result<Applied, PublishError> {
    let (mut mean, spoilt) = sum.decode(open.bits, open.clip, &open.digest())?;
    let survivors = sum.parts().survivors;
    let former = match rollback.takes_back(open.round, survivors, mean.votes) {
        true => former()?,
        false => None,
    };
    let taken_back = former.is_some();
    let (state, scaled) = match former {
        Some(former) => {
            mean.delta = Vec::new();
            let adapter = &state.adapter;
            let back = GlobalState {
                adapter: Arc::new(adapter.moved_towards(&former.adapter, RollbackPlan::PART)?),
                optimizer: former.optimizer,
            };
            (back, None)
        }
        None => {
            let ServerStep {
                values,
                after,
                scaled,
            } = (state.optimizer).step(open.factors, std::mem::take(&mut mean.delta), open.clip);
            let next = GlobalState {
                adapter: Arc::new(state.adapter.with_added(part, values)?),
                optimizer: after,
            };
            (next, scaled)
        }
    };
    Ok(Applied {
        state,
        taken_back,
        scaled,
        mean,
        spoilt,
    })
}

/// The members in a round's sum, and those that dropped out.
#[derive(Debug)]
pub struct Participation {
    /// The members whose updates are in the sum.
    pub survivors: Vec<MemberIndex>,
    /// The members of the round that are not in the sum.
    pub dropped: Vec<MemberIndex>,
    /// The digest of keys and survivor list.
    pub transcript: Digest,
}

/// Signs the result of a round with the operator's `key`, chained to the result whose digest is
/// `previous`.
pub fn sign_result(
    open: &Open,
    participation: Participation,
    adapter: &Adapter,
    sum: &RoundSum,
    mean: &WeightedMean,
    previous: Digest,
    key: &IdentityKey,
) -> Verified<RoundResult> {
    let result = RoundResult {
        run: open.run,
        round: open.round,
        attempt: open.attempt,
        adapter: adapter.digest(),
        sum: sum.digest(),
        total_weight: sum.parts().weight,
        transcript: participation.transcript,
        previous,
        survivors: participation.survivors,
        dropped: participation.dropped,
        train_loss: mean.train_loss,
        eval_loss: mean.eval_loss,
        clipped: mean.clipped,
        votes: mean.votes,
    };
    Verified::sign(result, key, &previous)
}

/// Writes a round's adapter and the server optimizer's state, and appends the round's result,
/// durably, in that order. A crash in between leaves the files of a round without a result, which
/// the next write replaces. Gives the adapter's folder.
///
/// # Errors
/// [`PublishError`] naming the file.
pub fn store(
    directory: &RunDirectory,
    applied: &Applied,
    plan: &RunPlan,
    result: &Unverified<RoundResult>,
) -> Result<PathBuf, PublishError> {
    let body = result.claimed();
    let folder = save(
        directory,
        body.round,
        &applied.state.adapter,
        &plan.base.name,
    )?;
    let path = directory.server_state(body.round.0);
    let of = StateOf::after(body, plan.digest());
    let saved = applied.state.optimizer.save(directory.store(), &path, &of);
    saved.map_err(|source| PublishError::Io { path, source })?;
    let path = directory.results();
    append_line(directory, result).map_err(|source| PublishError::Io { path, source })?;
    Ok(folder)
}

/// Writes the run's first adapter, which is its result where no round improved it. Gives the
/// adapter's folder.
///
/// # Errors
/// [`PublishError::Peft`] naming the file.
pub fn store_first(
    directory: &RunDirectory,
    first: &Adapter,
    base_name: &str,
) -> Result<PathBuf, PublishError> {
    save(directory, RoundNumber(0), first, base_name)
}

fn save(
    directory: &RunDirectory,
    round: RoundNumber,
    adapter: &Adapter,
    base_name: &str,
) -> Result<PathBuf, PublishError> {
    let folder = directory.adapter(round.0);
    peft::save(&folder, adapter, base_name)?;
    match directory.store().adopt(&folder) {
        Ok(()) => Ok(folder),
        Err(source) => Err(PublishError::Io {
            path: folder,
            source,
        }),
    }
}

/// Removes the server optimizer's state that no step needs any more, once the one after `round` is
/// stored: the one before that may come back by the members' votes, earlier ones do not.
///
/// # Errors
/// [`PublishError::Io`] naming the file.
pub fn forget_old_state(directory: &RunDirectory, round: RoundNumber) -> Result<(), PublishError> {
    // One that a crash left goes with the next.
    for old in [3, 2].map(|back| round.0.saturating_sub(back)) {
        let path = directory.server_state(old);
        if let Err(source) = directory.store().remove(&path) {
            return Err(PublishError::Io { path, source });
        }
    }
    Ok(())
}

/// Keeps the run's roster, by which anybody can check evidence.
///
/// # Errors
/// [`PublishError::Io`] where it cannot be written.
pub fn store_roster(directory: &RunDirectory, roster: &Roster) -> Result<(), PublishError> {
    let path = directory.roster();
    let written = directory.store().write_json(&path, roster);
    written.map_err(|source| PublishError::Io { path, source })
}

/// Keeps what the run began with, by which its results are verified.
///
/// # Errors
/// [`PublishError::Io`] where it cannot be written.
pub fn store_receipt(directory: &RunDirectory, receipt: &RunReceipt) -> Result<(), PublishError> {
    let path = directory.receipt();
    let written = directory.store().write_json(&path, receipt);
    written.map_err(|source| PublishError::Io { path, source })
}

/// Keeps evidence against a member in the run's directory, in JSON; gives the file's path.
///
/// # Errors
/// [`PublishError::Io`] where it cannot be written.
pub fn store_evidence(
    directory: &RunDirectory,
    evidence: &Evidence,
    member: MemberIndex,
) -> Result<PathBuf, PublishError> {
    let folder = directory.evidence();
    let Open { round, attempt, .. } = &evidence.open;
    let name = format!(
        "round-{:04}-attempt-{}-member-{}.json",
        round.0, attempt.0, member.0
    );
    let path = folder.join(name);
    fs::create_dir_all(&folder)
        .and_then(|()| directory.store().write_json(&path, evidence))
        .map_err(|source| PublishError::Io {
            path: path.clone(),
            source,
        })?;
    Ok(path)
}

fn append_line(directory: &RunDirectory, result: &Unverified<RoundResult>) -> io::Result<()> {
    let mut line = serde_json::to_vec(result)?;
    line.push(b'\n');
    directory.store().append(&directory.results(), &line)
}

/// Why a round's outcome could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The sums are not of updates.
    #[error(transparent)]
    Sum(#[from] RoundSumError),
    /// The mean does not fit the adapter, or makes a value that is not finite.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// An adapter's PEFT files cannot be written or read.
    #[error(transparent)]
    Peft(#[from] peft::PeftError),
    /// The state of the server's optimizer after an earlier round cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// An earlier round's adapter is not the one that its result names.
    #[error("{}: it is not the adapter that the round's result names", path.display())]
    OtherAdapter {
        /// Its folder.
        path: PathBuf,
    },
    /// A file of the run cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that cannot be written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
