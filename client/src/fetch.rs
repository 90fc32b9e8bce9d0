//! What an aggregator has published of a run, fetched without taking part: its plan, its roster, its signed
//! results and its adapters. For a member that was away at the end, and for one that was not in the run.

use std::path::{Path, PathBuf};

use fedlora_adapter::peft::{self, PeftError};
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::{RoundNumber, RunId};
use fedlora_protocol::plan::{LossCurve, PlanError, Roster, RunPlan};
use fedlora_protocol::wire::messages::{RoundResult, ToMember};
use fedlora_protocol::wire::session::Purpose;

use crate::federation::{Connector, LinkError, MemberLink, NetworkConnector, NetworkLink};
use crate::receipts;

/// The largest file of weights.
const MAX_WEIGHTS: u64 = 9 << 30;

/// A run as its aggregator has published it, with the connection to fetch its adapters.
#[derive(Debug)]
pub struct PublishedRun {
    /// The run.
    pub run: RunId,
    /// Its plan, as the aggregator signed it.
    pub plan: RunPlan,
    /// Its members.
    pub roster: Roster,
    /// Its results so far, signed and each chained to the one before.
    pub results: Vec<RoundResult>,
    /// Whether the run is over.
    pub over: bool,
    /// Why it ended early, where it did.
    pub failure: Option<String>,
    link: NetworkLink,
}

impl PublishedRun {
    /// Reads what is published of `run`; where none is named, of the run that was begun last.
    ///
    /// # Errors
    /// [`FetchError`]; a result that the aggregator did not sign, or that does not follow from the one
    /// before.
    pub async fn read(
        connector: &NetworkConnector,
        aggregator: &IdentityPublic,
        run: Option<RunId>,
    ) -> Result<Self, FetchError> {
        let mut link = connector.open(Purpose::Fetch { run }).await?;
        let (mut plan, mut roster) = (None, None);
        let (mut results, mut head) = (Vec::<RoundResult>::new(), None::<Digest>);
        let (mut over, mut failure) = (false, None);
        while let Some(message) = link.next().await? {
            match message {
                // Before all results, and once.
                ToMember::Plan(_) | ToMember::Roster(_) if !results.is_empty() => {
                    let number = RoundNumber(results.len() as u32);
                    return Err(FetchError::Chain { number });
                }
                ToMember::Plan(signed) => plan = Some(signed.verify(aggregator)?),
                ToMember::Roster(shown) => roster = Some(shown),
                ToMember::Result(signed) => {
                    let number = RoundNumber(results.len() as u32 + 1);
                    let claimed = signed.claimed();
                    // What the first follows from, only a member of the run can tell.
                    let previous = head.unwrap_or(claimed.previous);
                    let of_run = plan.as_ref().is_some_and(|(run, plan)| {
                        claimed.run == *run && claimed.round.0 <= plan.rounds
                    });
                    if !of_run || claimed.round != number || claimed.previous != previous {
                        return Err(FetchError::Chain { number });
                    }
                    let verified = signed.verify(aggregator, &previous);
                    let verified = verified.map_err(|_| FetchError::Signature { number })?;
                    let body = verified.into_body();
                    head = Some(body.digest());
                    results.push(body);
                }
                ToMember::Finished { failure: why } => (over, failure) = (true, why),
                ToMember::Refused { reason } => return Err(FetchError::Refused { reason }),
                // Of a later release.
                _ => {}
            }
        }
        let (Some((found, plan)), Some(roster)) = (plan, roster) else {
            return Err(FetchError::NeverBegan { failure });
        };
        if let Some(run) = run.filter(|run| *run != found) {
            return Err(FetchError::OtherRun { run, found });
        }
        Ok(Self {
            run: found,
            plan,
            roster,
            results,
            over,
            failure,
            link,
        })
    }

    /// The round whose adapter is the run's result, by the results so far.
    pub fn result_round(&self) -> RoundNumber {
        let mut losses = LossCurve::new(&self.plan.stopping);
        for result in &self.results {
            let survivors = result.survivors.len();
            let rollback = &self.plan.rollback;
            let taken_back = rollback.takes_back(result.round, survivors, result.votes);
            let told = (&result.survivors[..], result.eval_loss);
            losses.advance(result.round, told, taken_back);
        }
        losses.best()
    }

    /// Fetches the adapter of a round into the folder `out`, in PEFT's form, once it is what the signed
    /// result names. Gives its digest.
    ///
    /// # Errors
    /// [`FetchError`]; then `out` is as it was.
    pub async fn save(&self, round: RoundNumber, out: &Path) -> Result<Digest, FetchError> {
        let named = self.results.iter().find(|result| result.round == round);
        let Some(adapter) = named.map(|result| result.adapter) else {
            return Err(FetchError::NoRound {
                round,
                rounds: self.results.len(),
            });
        };
        let weights = self
            .link
            .carrier()
            .fetch_weights(adapter, MAX_WEIGHTS)
            .await?;
        let lora = self.plan.adapter.lora.clone();
        let read = peft::parse_weights(Path::new("the fetched file"), lora, &weights)?;
        if read.digest() != adapter {
            return Err(FetchError::OtherAdapter { round });
        }
        peft::save(out, &read, &self.plan.base.name).map_err(FetchError::Save)?;
        Ok(adapter)
    }

    /// Checks that this is what the member has kept of the run, as far as that goes: nothing where it was
    /// not in it, and then the roster is the aggregator's word.
    ///
    /// # Errors
    /// [`FetchError::OtherHistory`].
    pub fn compare(&self, runs: &Path) -> Result<(), FetchError> {
        let folder = runs.join(self.run.to_string());
        let Ok(kept) = receipts::verify(&folder) else {
            return Ok(());
        };
        let kept_results = kept.verified.results.iter();
        let same = kept.verified.plan == self.plan
            && kept.receipt.roster == self.roster
            && kept_results
                .zip(&self.results)
                .all(|(own, shown)| own == shown);
        match same {
            true => Ok(()),
            false => Err(FetchError::OtherHistory { folder }),
        }
    }

    /// Ends the connection.
    pub async fn finish(self) {
        self.link.finish().await;
    }
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The aggregator has no such run.
    #[error("the aggregator refuses: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
    /// The plan is not the aggregator's, or impossible.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A run that ended before its members were complete.
    #[error("the run ended before its first round{}", failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NeverBegan {
        /// The aggregator's reason, where it gives one.
        failure: Option<String>,
    },
    /// Another run than was asked for.
    #[error("the aggregator shows run {found} in place of {run}")]
    OtherRun {
        /// The run that was asked for.
        run: RunId,
        /// The run that was shown.
        found: RunId,
    },
    /// A result that does not follow from the one before.
    #[error("result {number} does not follow from what is before it")]
    Chain {
        /// Its place, from 1.
        number: RoundNumber,
    },
    /// A result that the aggregator did not sign.
    #[error("result {number} is not signed by the aggregator that this member joined")]
    Signature {
        /// Its place, from 1.
        number: RoundNumber,
    },
    /// A round without a result.
    #[error(
        "the run has no adapter of round {round}: {rounds} rounds are done{}",
        match round.0 { 0 => "; its result is the first adapter, which follows from its plan", _ => "" }
    )]
    NoRound {
        /// The round that was asked for.
        round: RoundNumber,
        /// Rounds with a result.
        rounds: usize,
    },
    /// An adapter that is not what the result names.
    #[error("the adapter that was sent is not the one that the result of round {round} names")]
    OtherAdapter {
        /// The round.
        round: RoundNumber,
    },
    /// What is shown is not what the member has kept of the run.
    #[error(
        "the aggregator shows another plan, roster or results than this member has kept in {}",
        folder.display()
    )]
    OtherHistory {
        /// What the member has kept.
        folder: PathBuf,
    },
    /// What was sent is no adapter.
    #[error(transparent)]
    Adapter(#[from] PeftError),
    /// The adapter cannot be written.
    #[error(transparent)]
    Save(PeftError),
}
