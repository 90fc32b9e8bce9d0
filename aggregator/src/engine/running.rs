//! The phase of the rounds: opens one after another until the plan is carried out.

use fedlora_protocol::ids::{Attempt, RoundNumber};
use fedlora_protocol::wire::messages::{PhaseName, RoundFailure};

use super::chain::AdapterChain;
use super::closed_round::RoundOutcome;
use super::context::RunContext;
use super::current_round::run_round;
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};

/// Attempts at one round before the run is given up.
const MAX_ATTEMPTS: u32 = 3;

/// A run whose cohort is complete, between two rounds.
#[derive(Debug)]
pub(super) struct Running {
    context: RunContext,
    chain: AdapterChain,
}

impl Running {
    /// The run before its first round.
    pub(super) fn new(context: RunContext, chain: AdapterChain) -> Self {
        Self { context, chain }
    }

    /// Runs all rounds of the plan.
    pub(super) async fn run_rounds(self) -> Farewell {
        let Self {
            mut context,
            mut chain,
        } = self;
        let last = RoundNumber(context.setup.plan.rounds);
        let mut round = RoundNumber(1);
        let mut attempt = Attempt(1);
        while round <= last {
            let closed = match run_round(context, chain, round, attempt).await {
                Ok(closed) => closed,
                Err(farewell) => return *farewell,
            };
            (context, chain) = (closed.context, closed.chain);
            match closed.outcome {
                RoundOutcome::Done => {
                    round = RoundNumber(round.0 + 1);
                    attempt = Attempt(1);
                }
                RoundOutcome::Failed(reason) if may_retry(reason) && attempt.0 < MAX_ATTEMPTS => {
                    attempt = Attempt(attempt.0 + 1);
                }
                RoundOutcome::Failed(reason) => {
                    let failure = RunFailure::Round { round, reason };
                    return Farewell::failed(context, Reached::Rounds(Box::new(chain)), failure);
                }
            }
        }
        Farewell::finished(context, chain)
    }
}

/// Whether a failed round may be tried again. Once shares may have been revealed, the members must
/// not be asked for the same round's update again.
fn may_retry(reason: RoundFailure) -> bool {
    !matches!(
        reason,
        RoundFailure::Recovery
            | RoundFailure::Sum
            | RoundFailure::Quorum {
                phase: PhaseName::Reveal,
                ..
            }
    )
}
