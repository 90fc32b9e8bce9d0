//! M0: what an attempt at a round is about, from the plan and how far the run has come. The engine
//! opens rounds with it; who replays one derives the same.

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::secagg::CohortPolicy;
use fedlora_protocol::wire::messages::Open;

/// How far a run has come before a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) run: RunId,
    /// The digest of the plan.
    pub(crate) plan: Digest,
    /// The digest of the roster.
    pub(crate) roster: Digest,
    /// The digest of the newest result; of the run's start before the first.
    pub(crate) previous: Digest,
    /// The digest of the newest global adapter.
    pub(crate) adapter: Digest,
    /// The clip norm of the round.
    pub(crate) clip: f32,
}

impl Standing {
    /// M0 of an attempt at a round that trains the part of the adapter with the digest `layout`.
    pub(crate) fn open(
        self,
        plan: &RunPlan,
        policy: &CohortPolicy,
        layout: Digest,
        (round, attempt): (RoundNumber, Attempt),
    ) -> Open {
        Open {
            suite: plan.aggregation.suite.code(),
            run: self.run,
            round,
            attempt,
            previous: self.previous,
            roster: self.roster,
            adapter: self.adapter,
            plan: self.plan,
            layout,
            factors: plan.adapter.factors.factors_in(round),
            clip: self.clip,
            bits: plan.aggregation.bits,
            neighbours: policy.neighbours() as u16,
            threshold: policy.threshold() as u16,
            confirmations: policy.confirmations() as u16,
            minimum: policy.minimum() as u16,
        }
    }
}
