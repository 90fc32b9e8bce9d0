//! How an attempt at a round ends: with a published adapter, or with a failure. Steps 9 and 10 of
//! the round.

use std::sync::Arc;

use fedlora_adapter::Layout;
use fedlora_protocol::fixed::{RoundSum, SpoiltGroup};
use fedlora_protocol::wire::messages::{Open, PhaseName, RoundFailure, ToMember};
use tracing::{info, warn};

use super::chain::AdapterChain;
use super::context::RunContext;
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use super::messages::RunEvent;
use crate::blocking;
use crate::optimizer::ScaledStep;
use crate::publish::{self, Participation, PublishError};
use crate::run_directory::clear_uploads;
use crate::status::RunState;

/// What an attempt leaves to the run.
#[derive(Debug)]
pub(super) struct ClosedRound {
    pub(super) context: RunContext,
    pub(super) chain: AdapterChain,
    pub(super) outcome: RoundOutcome,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoundOutcome {
    /// Its adapter is published; the chain holds it.
    Done,
    /// It has no result; the chain is unchanged.
    Failed(AttemptFailure),
}

/// Why an attempt failed, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttemptFailure {
    pub(super) reason: RoundFailure,
    /// The phase that was open last.
    pub(super) phase: Option<PhaseName>,
}

impl ClosedRound {
    /// Closes an attempt that failed: tells whoever watches, and the members.
    pub(super) fn failed(
        mut context: RunContext,
        chain: AdapterChain,
        open: &Open,
        failure: AttemptFailure,
    ) -> Self {
        let reason = failure.reason;
        clear_uploads(&context.setup.directory);
        let (round, attempt) = (open.round, open.attempt);
        let said = chain.roster.naming(&reason.to_string());
        warn!(%round, %attempt, reason = %said, "the round failed");
        context.overview.attempts_failed += 1;
        context.watch(RunEvent::RoundFailed {
            round,
            attempt,
            reason,
        });
        context.links.broadcast(&ToMember::Abandoned {
            round,
            attempt,
            reason,
        });
        Self {
            context,
            chain,
            outcome: RoundOutcome::Failed(failure),
        }
    }

    /// Closes an attempt whose masks are off: applies the step of `sum` to `part` of the adapter,
    /// publishes the adapter, and sends the signed result to the members. A sum that cannot be
    /// applied fails the round.
    ///
    /// # Errors
    /// What ends the run: the adapter or its result could not be stored.
    pub(super) fn publish(
        mut context: RunContext,
        mut chain: AdapterChain,
        open: &Open,
        part: &Layout,
        sum: RoundSum,
        participation: Participation,
        last_phase: Option<PhaseName>,
    ) -> Result<Self, Box<Farewell>> {
        let plan = &context.setup.plan;
        let former = || blocking::in_place(|| chain.former(&context));
        let applied = publish::apply(chain.state(), former, &plan.rollback, part, open, &sum);
        let applied = match applied {
            Ok(applied) => applied,
            Err(error @ (PublishError::Sum(_) | PublishError::Adapter(_))) => {
                warn!(%error, "the unmasked sum is unusable");
                let failure = AttemptFailure {
                    reason: RoundFailure::Sum,
                    phase: last_phase,
                };
                return Ok(Self::failed(context, chain, open, failure));
            }
            Err(error) => return Err(end_run(context, chain, last_phase, error.into())),
        };
        for SpoiltGroup { group, reason } in &applied.spoilt {
            warn!(%group, %reason, "the sum of a group is none: it is left out");
        }
        if let Some(ScaledStep { from, to }) = applied.scaled {
            info!(
                from,
                to, "the step is longer than the plan's largest: it is scaled down"
            );
        }
        if applied.taken_back {
            warn!(
                round = %open.round, votes = applied.mean.votes,
                "the members found the newest adapter worse than the one before: that step is \
                 taken back"
            );
        }
        let identity = &context.setup.operator.identity;
        let verified = publish::sign_result(
            open,
            participation,
            &applied.state.adapter,
            &sum,
            &applied.mean,
            chain.head(),
            identity,
        );
        let signed = verified.unverified().clone();
        let stored = blocking::in_place(|| {
            let directory = &context.setup.directory;
            let folder = publish::store(directory, &applied, plan, &signed)?;
            // Only a replay needs it.
            if !context.setup.record.is_kept()
                && let Err(error) = publish::forget_old_state(directory, open.round)
            {
                warn!(%error, "an old state of the server optimizer stays");
            }
            Ok::<_, PublishError>(folder)
        });
        let folder = match stored {
            Ok(folder) => folder,
            Err(error) => return Err(end_run(context, chain, last_phase, error.into())),
        };
        let result = verified.into_body();
        chain.extend(applied, signed.clone());
        context.offenders.forgive(&result.survivors);
        info!(
            run = %context.setup.run, round = %result.round, survivors = result.survivors.len(),
            weight = result.total_weight, adapter = %result.adapter, "the round is done"
        );
        chain.tell(&context.links, &ToMember::Result(signed));
        context.watch(RunEvent::RoundDone {
            result,
            sum: Arc::new(sum),
            folder,
        });
        context.overview.last_result = Some(context.setup.clock.now());
        context.write_status(chain.progress(RunState::Running, None, None));
        clear_uploads(&context.setup.directory);
        if let Err(error) = blocking::in_place(|| context.setup.record.forget_attempts()) {
            warn!(%error, "the record of the round stays");
        }
        Ok(Self {
            context,
            chain,
            outcome: RoundOutcome::Done,
        })
    }
}

/// Ends the run within a round, whose phase `phase` was open last.
pub(super) fn end_run(
    context: RunContext,
    chain: AdapterChain,
    phase: Option<PhaseName>,
    failure: RunFailure,
) -> Box<Farewell> {
    let reached = Reached::Rounds {
        chain: Box::new(chain),
        phase,
    };
    Box::new(Farewell::failed(context, reached, failure))
}
