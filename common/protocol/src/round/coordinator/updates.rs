//! The phase that collects the masked updates (M3). The shell stores the vectors; the phase
//! holds only whose they are.

use std::collections::BTreeMap;

use crate::crypto::sign::Signature;
use crate::ids::{MemberIndex, MemberSet};
use crate::wire::Unverified;
use crate::wire::messages::{ClaimedVector, PhaseName, ToMember, UpdateClaim};

use super::cohort::MaskedCohort;
use super::confirm::CollectConfirmations;
use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::setup::RoundSetup;
use super::transition::{Transition, View};

/// The updates taken so far.
#[derive(Debug)]
pub(super) struct CollectUpdates {
    masked: MaskedCohort,
    /// What holders said that they hold, with their signatures.
    held: BTreeMap<MemberIndex, (MemberSet, Signature)>,
    taken: BTreeMap<MemberIndex, ClaimedVector>,
}

impl CollectUpdates {
    pub(super) fn new(
        masked: MaskedCohort,
        held: BTreeMap<MemberIndex, (MemberSet, Signature)>,
    ) -> Self {
        Self {
            masked,
            held,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = MemberIndex> {
        self.masked.dealers.iter()
    }

    /// Among whom masks are.
    pub(super) fn request(&self) -> ToMember {
        ToMember::Dealers(self.masked.dealers.clone())
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        claim: Unverified<UpdateClaim>,
    ) -> Result<EventKind, Reject> {
        let UpdateClaim {
            member, dealers, ..
        } = *claim.claimed();
        if member != from {
            let claimed = member;
            return Err(Reject::Impersonation { from, claimed });
        }
        let entry = setup
            .roster
            .get(from)
            .filter(|_| self.masked.dealers.contains(from) && !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        if dealers != self.masked.dealers_digest() {
            return Err(Reject::Dealers { member: from });
        }
        claim
            .verify(&entry.identity, &setup.digest)
            .map(|verified| EventKind::UpdateTaken(verified.unverified().clone()))
            .map_err(|_| Reject::Signature { member: from })
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Transition<Self, CollectConfirmations> {
        if let EventKind::UpdateTaken(claim) = event {
            let member = claim.claimed().member;
            self.taken.insert(member, ClaimedVector::from(&claim));
            let group = self.masked.group_of(member);
            effects.push(CoordinatorEffect::Accumulate(member, group));
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        let taken = self.taken.keys().copied().collect();
        let groups = self.masked.cohort.graph.groups();
        match view.in_whole_groups(PhaseName::Updates, groups, &taken) {
            // The others' updates are in the sums of groups that nobody unmasks.
            Ok(kept) => self.taken.retain(|member, _| kept.contains(*member)),
            Err(failure) => return Transition::End(CoordinatorEffect::Fail(failure)),
        }
        let next = CollectConfirmations::new(self.masked, self.held, self.taken);
        let more = next
            .survivors()
            .map(|member| CoordinatorEffect::Send(member, next.request(member)))
            .collect();
        Transition::Next(next, more)
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        self.members()
            .filter(|member| !self.taken.contains_key(member))
            .collect()
    }
}
