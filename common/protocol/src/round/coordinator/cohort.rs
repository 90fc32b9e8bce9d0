//! What is publicly known of a round's members, phase after phase.

use std::collections::BTreeMap;

use crate::fixed::{CohortWeight, SumParts, WeightClass};
use crate::ids::{GroupIndex, MemberIndex, MemberSet};
use crate::round::dealt::dealt_by;
use crate::round::joined::Joined;
use crate::secagg::{Dealt, NeighbourGraph};
use crate::wire::Unverified;
use crate::wire::messages::{Deal, Keys, dealers_digest};
use fedlora_common::digest::Digest;

/// The members that sent keys (U1), and how they stand to each other.
#[derive(Debug)]
pub(super) struct JoinedCohort {
    /// Who they are, and what neighbours were drawn from.
    pub(super) joined: Joined,
    /// What keys are signed for.
    pub(super) context: Digest,
    pub(super) keys: BTreeMap<MemberIndex, Unverified<Keys>>,
    pub(super) graph: NeighbourGraph,
    /// What shares and masks are bound to.
    pub(super) transcript: Digest,
}

impl JoinedCohort {
    /// The neighbours of `member` that are in the cohort, ascending.
    pub(super) fn neighbours(&self, member: MemberIndex) -> impl Iterator<Item = MemberIndex> {
        let neighbours = self.graph.neighbours(member).into_iter();
        neighbours.filter(|neighbour| self.keys.contains_key(neighbour))
    }

    fn weights(&self) -> impl Iterator<Item = (MemberIndex, WeightClass)> {
        self.keys
            .iter()
            .map(|(member, keys)| (*member, keys.claimed().weight))
    }
}

/// The members that masks are among (U3), and all that they are recovered from but the shares.
#[derive(Debug)]
pub(super) struct MaskedCohort {
    pub(super) cohort: JoinedCohort,
    pub(super) deals: BTreeMap<MemberIndex, Unverified<Deal>>,
    pub(super) dealers: MemberSet,
}

impl MaskedCohort {
    /// The group of a dealer.
    pub(super) fn group_of(&self, dealer: MemberIndex) -> GroupIndex {
        let group = self.cohort.graph.groups().of(dealer);
        group.expect("every dealer is on the roster, and so in a group")
    }

    /// Those of a group for whom the fixed-point format of its sum is made.
    pub(super) fn weight(&self, group: GroupIndex) -> CohortWeight {
        let members = self.cohort.weights();
        let of_group = members.filter(|(member, _)| self.group_of(*member) == group);
        CohortWeight::of(of_group.map(|(_, weight)| weight))
    }

    /// How many and how heavy the survivors of a group are.
    pub(super) fn parts(&self, survivors: &MemberSet) -> SumParts {
        let weights = self.cohort.weights();
        SumParts {
            survivors: survivors.len(),
            weight: weights
                .filter(|(member, _)| survivors.contains(*member))
                .map(|(_, weight)| weight.weight())
                .sum(),
        }
    }

    /// What a claim of an update among these members signs of them.
    pub(super) fn dealers_digest(&self) -> Digest {
        dealers_digest(&self.cohort.transcript, &self.dealers)
    }

    /// What each member dealt, as far as the masks' recovery needs it.
    pub(super) fn dealt(&self) -> BTreeMap<MemberIndex, Dealt> {
        self.dealers
            .iter()
            .filter_map(|member| {
                let keys = self.cohort.keys.get(&member)?.claimed();
                let deal = self.deals.get(&member)?.claimed();
                Some((member, dealt_by(keys, &self.cohort.context, deal)))
            })
            .collect()
    }
}
