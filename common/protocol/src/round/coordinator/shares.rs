//! The phase that collects what members deal to their neighbours (M2).

use std::collections::BTreeMap;

use crate::ids::MemberIndex;
use crate::wire::Unverified;
use crate::wire::messages::{BeaconOpening, Deal, PeerKeys, PhaseName, ToMember};

use super::cohort::JoinedCohort;
use super::event::{CoordinatorEffect, EventKind};
use super::held::CollectHeld;
use super::reject::Reject;
use super::setup::RoundSetup;
use super::transition::{Transition, View, missing};

/// The deals taken so far.
#[derive(Debug)]
pub(super) struct CollectShares {
    cohort: JoinedCohort,
    openings: BTreeMap<MemberIndex, BeaconOpening>,
    taken: BTreeMap<MemberIndex, Unverified<Deal>>,
}

impl CollectShares {
    pub(super) fn new(
        cohort: JoinedCohort,
        openings: BTreeMap<MemberIndex, BeaconOpening>,
    ) -> Self {
        Self {
            cohort,
            openings,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = MemberIndex> {
        self.cohort.keys.keys().copied()
    }

    /// Who takes part, and the keys of one member's neighbours.
    pub(super) fn request(&self, member: MemberIndex) -> ToMember {
        let neighbours = self.cohort.neighbours(member);
        ToMember::PeerKeys(PeerKeys {
            cohort: self.cohort.joined.cohort.clone(),
            openings: self.openings.clone(),
            keys: neighbours
                .filter_map(|peer| self.cohort.keys.get(&peer).cloned())
                .collect(),
        })
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        deal: Unverified<Deal>,
    ) -> Result<EventKind, Reject> {
        let claimed = deal.claimed().member;
        if claimed != from {
            return Err(Reject::Impersonation { from, claimed });
        }
        let entry = setup
            .roster
            .get(from)
            .filter(|_| self.cohort.keys.contains_key(&from) && !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let verified = deal
            .verify(&entry.identity, &self.cohort.transcript)
            .map_err(|_| Reject::Signature { member: from })?;
        let shares = &verified.body().shares;
        let fits = shares.iter().all(|(holder, dealt)| {
            let mask = if from < *holder {
                dealt.mask.fits(setup.suite)
            } else {
                dealt.mask.is_empty()
            };
            mask && dealt.seal.fits(setup.suite)
        });
        if !fits || !self.cohort.neighbours(from).eq(shares.keys().copied()) {
            return Err(Reject::Shares { member: from });
        }
        Ok(EventKind::SharesTaken(verified.unverified().clone()))
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectHeld> {
        if let EventKind::SharesTaken(deal) = event {
            self.taken.insert(deal.claimed().member, deal);
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        if let Some(end) = view.too_few(PhaseName::Shares, self.taken.len()) {
            return Transition::End(end);
        }
        let next = CollectHeld::new(self.cohort, self.taken);
        let effects = next
            .members()
            .map(|member| CoordinatorEffect::Send(member, next.request(member)))
            .collect();
        Transition::Next(next, effects)
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.cohort.keys.keys(), |member| {
            self.taken.contains_key(member)
        })
    }
}
