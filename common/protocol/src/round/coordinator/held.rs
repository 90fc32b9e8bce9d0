//! The phase in which holders say whose shares they have: who deals garbage is left out before it
//! can cost the round.

use std::collections::BTreeMap;

use crate::crypto::sign::Signature;
use crate::ids::{MemberIndex, MemberSet};
use crate::wire::messages::{Deal, DealtShares, HeldShares, PhaseName, ToMember};
use crate::wire::{Signable, Unverified};

use super::cohort::{JoinedCohort, MaskedCohort};
use super::event::{CoordinatorEffect, EventKind};
use super::fault::Fault;
use super::reject::Reject;
use super::setup::RoundSetup;
use super::transition::{Transition, View, missing};
use super::updates::CollectUpdates;

/// What holders have said so far.
#[derive(Debug)]
pub(super) struct CollectHeld {
    cohort: JoinedCohort,
    deals: BTreeMap<MemberIndex, Unverified<Deal>>,
    taken: BTreeMap<MemberIndex, (MemberSet, Signature)>,
}

impl CollectHeld {
    pub(super) fn new(
        cohort: JoinedCohort,
        deals: BTreeMap<MemberIndex, Unverified<Deal>>,
    ) -> Self {
        Self {
            cohort,
            deals,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = MemberIndex> {
        self.deals.keys().copied()
    }

    /// What the neighbours dealt to one holder.
    pub(super) fn request(&self, holder: MemberIndex) -> ToMember {
        let dealers = self.cohort.neighbours(holder);
        let shares =
            dealers.filter_map(|dealer| Some((dealer, self.dealt(dealer, holder)?.clone())));
        ToMember::PeerShares(shares.collect())
    }

    fn dealt(&self, dealer: MemberIndex, holder: MemberIndex) -> Option<&DealtShares> {
        self.deals.get(&dealer)?.claimed().shares.get(&holder)
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        dealers: MemberSet,
        signature: Signature,
    ) -> Result<EventKind, Reject> {
        let entry = setup
            .roster
            .get(from)
            .filter(|_| self.deals.contains_key(&from) && !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let held: Option<BTreeMap<_, _>> = dealers
            .iter()
            .map(|dealer| Some((dealer, self.dealt(dealer, from)?.commitments)))
            .collect();
        let statement = HeldShares {
            member: from,
            held: held.ok_or(Reject::Shares { member: from })?,
        };
        let digest = statement.signed_digest(&self.cohort.transcript);
        entry
            .identity
            .verify(&digest, &signature)
            .map_err(|_| Reject::Signature { member: from })?;
        Ok(EventKind::HeldTaken(from, dealers, signature))
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Transition<Self, CollectUpdates> {
        if let EventKind::HeldTaken(from, dealers, signature) = event {
            self.taken.insert(from, (dealers, signature));
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        if let Some(end) = view.too_few(PhaseName::Held, self.taken.len()) {
            return Transition::End(end);
        }
        let dealers = self.dealers(view.setup);
        let left_out = self.taken.keys().copied();
        for member in left_out.filter(|member| !dealers.contains(*member)) {
            let denied_by: Vec<_> = self.deniers(member).collect();
            let denies: Vec<_> = self.disputed_by(member, &dealers).collect();
            // Without either, too few of its neighbours are there: no fault of its own.
            let fault = if !denied_by.is_empty() {
                let dealer = member;
                Fault::Unheld { dealer, denied_by }
            } else if !denies.is_empty() {
                let holder = member;
                Fault::Denies { holder, denies }
            } else {
                continue;
            };
            effects.push(CoordinatorEffect::Blame(fault));
        }
        // Before anybody trains: a member whose group is too small refuses these dealers itself.
        let groups = self.cohort.graph.groups();
        if let Err(failure) = view.in_whole_groups(PhaseName::Held, groups, &dealers) {
            return Transition::End(CoordinatorEffect::Fail(failure));
        }
        let masked = MaskedCohort {
            cohort: self.cohort,
            deals: self.deals,
            dealers,
        };
        let next = CollectUpdates::new(masked, self.taken);
        let request = next.request();
        let more = next
            .members()
            .map(|member| CoordinatorEffect::Send(member, request.clone()))
            .collect();
        Transition::Next(next, more)
    }

    /// The members whose shares enough others among them hold. A holder that is left out takes
    /// what it holds with it, so the others are counted again; not where the round fails anyway,
    /// for then nobody has enough holders, whoever dealt well.
    fn dealers(&self, setup: &RoundSetup) -> MemberSet {
        let mut dealers: MemberSet = self.taken.keys().copied().collect();
        loop {
            let enough = |dealer: &MemberIndex| {
                let there = self
                    .cohort
                    .neighbours(*dealer)
                    .filter(|one| dealers.contains(*one));
                let (present, holding) = there.fold((1, 1), |(present, holding), holder| {
                    (
                        present + 1,
                        holding + usize::from(self.holds(holder, *dealer)),
                    )
                });
                holding >= setup.policy.enough_holders(present)
            };
            let kept: MemberSet = dealers.iter().filter(enough).collect();
            if kept.len() < setup.policy.quorum() {
                return kept;
            }
            let fewer = kept.len() < dealers.len();
            dealers = kept;
            if fewer {
                continue;
            }
            let Some(member) = self.most_disputed(&dealers) else {
                return dealers;
            };
            dealers = dealers.iter().filter(|one| *one != member).collect();
        }
    }

    /// Of those that disagree on a mask with another, the one with most of them; of two, the one
    /// that denies.
    fn most_disputed(&self, dealers: &MemberSet) -> Option<MemberIndex> {
        let mut disputes: BTreeMap<MemberIndex, (usize, bool)> = BTreeMap::new();
        for holder in dealers.iter() {
            for dealer in self.disputed_by(holder, dealers) {
                disputes.entry(dealer).or_default().0 += 1;
                let own = disputes.entry(holder).or_default();
                *own = (own.0 + 1, true);
            }
        }
        let most = disputes.into_iter().max_by_key(|(_, disputes)| *disputes);
        most.map(|(member, _)| member)
    }

    /// The dealers whose mask `holder` may have otherwise than they: it got it from them, and their
    /// shares, which prove it, did not open. Both in one sum would spoil it.
    fn disputed_by(
        &self,
        holder: MemberIndex,
        dealers: &MemberSet,
    ) -> impl Iterator<Item = MemberIndex> {
        let partners = self.cohort.graph.mask_partners(holder);
        partners.filter(move |dealer| {
            *dealer < holder && dealers.contains(*dealer) && !self.holds(holder, *dealer)
        })
    }

    fn holds(&self, holder: MemberIndex, dealer: MemberIndex) -> bool {
        let said = self.taken.get(&holder);
        said.is_some_and(|(dealers, _)| dealers.contains(dealer))
    }

    /// The holders that answered, and have no good share of `dealer`'s.
    fn deniers(&self, dealer: MemberIndex) -> impl Iterator<Item = MemberIndex> {
        let holders = self.cohort.neighbours(dealer);
        holders
            .filter(move |holder| self.taken.contains_key(holder) && !self.holds(*holder, dealer))
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.deals.keys(), |member| self.taken.contains_key(member))
    }
}
