//! What stays the same over the phases of one attempt at a round.

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::agreement::Suite;
use crate::fixed::WeightClass;
use crate::ids::MemberSet;
use crate::plan::{Roster, RunPlan, Timeouts};
use crate::secagg::CohortPolicy;
use crate::wire::messages::{Open, PhaseName};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

/// What stays the same over the phases of one attempt at a round.
#[derive(Debug)]
pub struct RoundSetup {
    pub(super) open: Open,
    pub(super) digest: Digest,
    pub(super) roster: Arc<Roster>,
    pub(super) policy: CohortPolicy,
    pub(super) suite: Suite,
    pub(super) highest_class: WeightClass,
    /// Members that held up a round of this run before: no phase waits for them.
    pub(super) offenders: MemberSet,
    timeouts: Timeouts,
}

impl RoundSetup {
    /// Puts a round of `plan` together. `open` holds the numbers of `policy`, which is the plan's.
    pub fn new(open: Open, roster: Arc<Roster>, policy: CohortPolicy, plan: &RunPlan) -> Self {
        let aggregation = &plan.aggregation;
        let terms = (aggregation.suite, aggregation.highest_class());
        Self::with(open, roster, policy, terms, plan.timeouts.clone())
    }

    /// Puts a round together without a plan: the suite of algorithms, and the class that a member
    /// may have at most.
    pub fn with(
        open: Open,
        roster: Arc<Roster>,
        policy: CohortPolicy,
        (suite, highest_class): (Suite, WeightClass),
        timeouts: Timeouts,
    ) -> Self {
        Self {
            digest: open.digest(),
            open,
            roster,
            policy,
            suite,
            highest_class,
            offenders: MemberSet::default(),
            timeouts,
        }
    }

    /// The same round, in which no phase waits for members that held up a round before. They take
    /// part where they are in time.
    pub fn not_waiting_for(mut self, offenders: MemberSet) -> Self {
        self.offenders = offenders;
        self
    }

    /// The round's M0.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// The digest of M0, which every answer names.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// When a phase that began at `from` closes at the latest.
    pub(super) fn deadline(&self, phase: PhaseName, from: Timestamp) -> Timestamp {
        let seconds = match phase {
            PhaseName::Commit | PhaseName::Keys => self.timeouts.keys,
            PhaseName::Shares | PhaseName::Held => self.timeouts.shares,
            PhaseName::Updates => self.timeouts.update,
            PhaseName::Confirm => self.timeouts.confirm,
            PhaseName::Reveal => self.timeouts.reveal,
        };
        from.after(Duration::from_secs(seconds))
    }
}
