//! What a member knows before a round opens, and what it keeps of one that it opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::crypto::agreement::Suite;
use crate::crypto::sign::IdentityKey;
use crate::fixed::{CohortWeight, LaneBits, WeightClass};
use crate::ids::{GroupIndex, MemberIndex, MemberSet, RoundNumber, RunId};
use crate::plan::Roster;
use crate::secagg::{CohortPolicy, Groups, NeighbourGraph};
use crate::wire::messages::Open;
use fedlora_adapter::Factors;
use fedlora_common::digest::Digest;

use super::refusal::Refusal;

/// What stays the same over all rounds of a run.
#[derive(Debug)]
pub struct RoundContext {
    /// The run that every M0 must name.
    pub run: RunId,
    /// The roster that this member pinned.
    pub roster: Roster,
    /// This member's place in it.
    pub me: MemberIndex,
    /// This member's identity key.
    pub identity: Arc<IdentityKey>,
    /// The digest of the accepted plan.
    pub plan: Digest,
    /// The number of the plan's last round.
    pub rounds: RoundNumber,
    /// This member's agreed weight, at most `highest_class`.
    pub weight: WeightClass,
    /// The plan's highest weight class; 0 where all weigh the same.
    pub highest_class: WeightClass,
    /// The fewest contributors that this member accepts, by the plan and its own floors.
    pub contributors: usize,
    /// The plan's numbers of secure aggregation.
    pub policy: CohortPolicy,
    /// The plan's suite of algorithms.
    pub suite: Suite,
}

/// What this member expects M0 to say, from its own copy of plan and adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// The round that follows the newest checked result; 1 before the first.
    pub round: RoundNumber,
    /// The digest of the newest checked result; the chain's start before the first.
    pub previous: Digest,
    /// The digest of the global adapter that it holds.
    pub adapter: Digest,
    /// The digest of the layout that this round trains.
    pub layout: Digest,
    /// The factors that this round trains.
    pub factors: Factors,
    /// The clip norm that plan and results give.
    pub clip: f32,
    /// The plan's bits of each lane.
    pub bits: LaneBits,
}

/// A round that this member agreed to.
#[derive(Debug)]
pub(super) struct OpenRound {
    pub(super) context: Arc<RoundContext>,
    pub(super) policy: CohortPolicy,
    pub(super) open: Open,
    pub(super) digest: Digest,
}

impl OpenRound {
    pub(super) fn me(&self) -> MemberIndex {
        self.context.me
    }

    /// Refuses a message that names too few members.
    pub(super) fn enough(&self, message: &'static str, got: usize) -> Result<(), Refusal> {
        at_least(message, got, self.policy.quorum())
    }

    /// Refuses a message that leaves too few holders of this member's secrets, itself counted.
    pub(super) fn enough_holders(&self, message: &'static str, got: usize) -> Result<(), Refusal> {
        at_least(message, got, self.policy.threshold())
    }

    /// Refuses masks within a group, this member counted, that is too small for a sum.
    pub(super) fn enough_in_group(&self, got: usize) -> Result<(), Refusal> {
        at_least("dealers", got, self.policy.groups().minimum())
    }

    /// Refuses a list of which a group has survivors, and so few that its sum could show one's
    /// update; or with so few groups that the plan's rule would not withstand what it should.
    pub(super) fn whole_groups(&self, groups: &Groups, list: &MemberSet) -> Result<(), Refusal> {
        let policy = self.policy.groups();
        let split = groups.split(list);
        let of_groups = split.iter().map(|(group, members)| (*group, members.len()));
        let thin = |(_, got): &(GroupIndex, usize)| (1..policy.minimum()).contains(got);
        if let Some((group, got)) = of_groups.clone().find(thin) {
            let needed = policy.minimum();
            return Err(Refusal::ThinGroup { group, got, needed });
        }
        let (got, needed) = (
            of_groups.filter(|(_, got)| *got > 0).count(),
            policy.needed(),
        );
        if got < needed {
            return Err(Refusal::FewGroups { got, needed });
        }
        Ok(())
    }

    /// More than (n + c) / 2 signatures: with fewer, two lists could both have them.
    pub(super) fn enough_signatures(&self, got: usize) -> Result<(), Refusal> {
        let needed = self.policy.confirmations();
        let needed = needed.max(self.open.confirmations.into());
        at_least("confirmations", got, needed)
    }
}

fn at_least(message: &'static str, got: usize, needed: usize) -> Result<(), Refusal> {
    if got < needed {
        return Err(Refusal::TooFew {
            message,
            got,
            needed,
        });
    }
    Ok(())
}

/// Who takes part in a round, once the keys are known.
#[derive(Debug)]
pub(super) struct JoinedCohort {
    pub(super) graph: NeighbourGraph,
    pub(super) weights: BTreeMap<MemberIndex, WeightClass>,
    pub(super) transcript: Digest,
}

impl JoinedCohort {
    /// Those that `member`'s sum could hold: its group.
    pub(super) fn weight_of_group(&self, member: MemberIndex) -> CohortWeight {
        let groups = self.graph.groups();
        let own = groups.of(member);
        let weights = self.weights.iter();
        let weights = weights.filter(|(other, _)| groups.of(**other) == own);
        CohortWeight::of(weights.map(|(_, weight)| *weight))
    }
}
