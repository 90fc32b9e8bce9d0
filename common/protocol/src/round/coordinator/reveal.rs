//! The phase that collects the revealed shares (M5), until they recover the masks.

use std::collections::BTreeMap;

use crate::crypto::shamir::Share;
use crate::crypto::sign::Signature;
use crate::ids::{GroupIndex, MemberIndex};
use crate::secagg::{DealtSecrets, RecoveryError, Unmasking};
use crate::wire::Unverified;
use crate::wire::messages::{
    Confirmations, PhaseName, Reveal, RevealedShare, RoundFailure, RoundResult, ToMember,
};

use super::confirm::ListedCohort;
use super::event::{Completed, CompletedGroup, CoordinatorEffect, EventKind};
use super::fault::Fault;
use super::reject::Reject;
use super::setup::RoundSetup;
use super::transition::{Transition, View, dropped_from, missing};

/// The shares taken so far.
#[derive(Debug)]
pub(super) struct CollectReveals {
    listed: ListedCohort,
    confirmations: BTreeMap<MemberIndex, Signature>,
    taken: BTreeMap<MemberIndex, Unverified<Reveal>>,
    /// Shares that are what their dealers committed to, by owner and holder.
    good: BTreeMap<MemberIndex, BTreeMap<MemberIndex, Share>>,
}

impl CollectReveals {
    pub(super) fn new(
        listed: ListedCohort,
        confirmations: BTreeMap<MemberIndex, Signature>,
    ) -> Self {
        Self {
            listed,
            confirmations,
            taken: BTreeMap::new(),
            good: BTreeMap::new(),
        }
    }

    pub(super) fn survivors(&self) -> impl Iterator<Item = MemberIndex> {
        self.listed.survivors()
    }

    /// The survivor list, for a member that has not seen it.
    pub(super) fn list(&self, member: MemberIndex) -> ToMember {
        self.listed.request(member)
    }

    /// As many of the others' signatures as confirm the list together with the member's own, those
    /// of its neighbours first, and the claims of the neighbours that have not signed.
    pub(super) fn request(&self, setup: &RoundSetup, member: MemberIndex) -> ToMember {
        let near = self.listed.masked.cohort.graph.neighbours(member);
        let (near, far): (Vec<_>, Vec<_>) = self
            .confirmations
            .iter()
            .filter(|(other, _)| **other != member)
            .partition(|(other, _)| near.contains(*other));
        let needed = (setup.policy.confirmations() - 1).max(near.len());
        let signatures: BTreeMap<_, _> = near
            .into_iter()
            .chain(far)
            .take(needed)
            .map(|(other, signature)| (*other, *signature))
            .collect();
        let claims = self.listed.claims.iter().filter(|(owner, _)| {
            self.holds(member, **owner) && **owner != member && !signatures.contains_key(owner)
        });
        ToMember::Confirmations(Confirmations {
            claims: claims.map(|(owner, claim)| (*owner, *claim)).collect(),
            signatures,
        })
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        shares: BTreeMap<MemberIndex, RevealedShare>,
        signature: Signature,
    ) -> Result<EventKind, Reject> {
        let listed = &self.listed;
        let entry = setup
            .roster
            .get(from)
            .filter(|_| listed.list.members.contains(from) && !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let unasked = shares.iter().find(|(owner, share)| {
            let survives = listed.list.members.contains(**owner);
            !self.holds(from, **owner) || survives != matches!(share, RevealedShare::SelfMask(_))
        });
        if let Some((&owner, _)) = unasked {
            return Err(Reject::Share {
                member: from,
                owner,
            });
        }
        let reveal = Reveal {
            member: from,
            list: listed.digest,
            shares,
        };
        Unverified::from_parts(reveal, signature)
            .verify(&entry.identity, &setup.digest)
            .map(|verified| EventKind::Revealed(verified.unverified().clone()))
            .map_err(|_| Reject::Signature { member: from })
    }

    /// Whether `holder` said that it holds a share of `owner`'s secrets, which masks depend on.
    fn holds(&self, holder: MemberIndex, owner: MemberIndex) -> bool {
        let said = self.listed.held.get(&holder);
        self.listed.masked.dealers.contains(owner)
            && (owner == holder || said.is_some_and(|(dealers, _)| dealers.contains(owner)))
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Transition<Self, ()> {
        if let EventKind::Revealed(reveal) = event {
            let fault = self.take(view.setup, reveal);
            effects.extend(fault.map(CoordinatorEffect::Blame));
        }
        let threshold = view.setup.policy.threshold();
        let dealers = &self.listed.masked.dealers;
        let enough = |owner| {
            self.good
                .get(&owner)
                .is_some_and(|good| good.len() >= threshold)
        };
        if dealers.iter().all(enough) {
            return Transition::End(self.recover(view.setup, effects));
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        let needed = view
            .setup
            .policy
            .confirmations()
            .min(self.listed.list.members.len());
        let got = self.taken.len();
        Transition::End(CoordinatorEffect::Fail(if got < needed {
            RoundFailure::Quorum {
                phase: PhaseName::Reveal,
                got: got as u16,
                needed: needed as u16,
            }
        } else {
            RoundFailure::Recovery
        }))
    }

    /// Keeps the shares that are what their dealers committed to. Another is its holder's forgery:
    /// it said that it holds the right one.
    fn take(&mut self, setup: &RoundSetup, reveal: Unverified<Reveal>) -> Option<Fault> {
        let Reveal { member, shares, .. } = reveal.claimed();
        let (holder, masked) = (*member, &self.listed.masked);
        let mut forged = None;
        for (&owner, revealed) in shares {
            let deal = masked.deals.get(&owner);
            let commitments = deal.and_then(|deal| deal.claimed().commitments(holder));
            let transcript = &masked.cohort.transcript;
            let share = revealed.share();
            let good = commitments.is_some_and(|commitments| {
                commitments.open_to(transcript, (owner, holder), revealed.kind(), &share)
            });
            if good {
                self.good.entry(owner).or_default().insert(holder, share);
            } else {
                forged = forged.or(Some(owner));
            }
        }
        let fault =
            forged.and_then(|owner| Fault::forged(setup, &self.listed, owner, reveal.clone()));
        self.taken.insert(holder, reveal);
        fault
    }

    fn recover(
        &self,
        setup: &RoundSetup,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> CoordinatorEffect {
        let masked = &self.listed.masked;
        let survivors = &self.listed.list.members;
        let unmasking = Unmasking::recover_groups(DealtSecrets {
            suite: setup.suite,
            graph: &masked.cohort.graph,
            transcript: &masked.cohort.transcript,
            threshold: setup.policy.threshold(),
            dealt: &masked.dealt(),
            survivors,
            revealed: &self.good,
        });
        match unmasking {
            Ok(unmaskings) => CoordinatorEffect::Unmask(Box::new(Completed {
                groups: self.groups(unmaskings),
                rule: setup.policy.groups().rule(),
                survivors: self.survivors().collect(),
                dropped: dropped_from(setup, survivors),
                transcript: RoundResult::transcript_of(
                    &masked.cohort.transcript,
                    &self.listed.digest,
                ),
            })),
            Err(RecoveryError::Deal { member }) => {
                let good = self.good.get(&member);
                let holders = good.into_iter().flat_map(BTreeMap::keys);
                let reveals = holders.filter_map(|holder| self.taken.get(holder).cloned());
                let fault = Fault::inconsistent(setup, &self.listed, member, reveals.collect());
                effects.extend(fault.map(CoordinatorEffect::Blame));
                CoordinatorEffect::Fail(RoundFailure::Deal { member })
            }
            Err(RecoveryError::Encapsulation { member, peer }) => {
                let fault = Fault::Encapsulation {
                    dealer: member,
                    peer,
                };
                effects.push(CoordinatorEffect::Blame(fault));
                CoordinatorEffect::Fail(RoundFailure::Deal { member })
            }
            Err(_) => CoordinatorEffect::Fail(RoundFailure::Recovery),
        }
    }

    /// The groups that have survivors, with the masks to remove from the sum of each.
    fn groups(&self, mut unmaskings: BTreeMap<GroupIndex, Unmasking>) -> Vec<CompletedGroup> {
        let masked = &self.listed.masked;
        let groups = masked.cohort.graph.groups();
        let whole = groups.whole(&self.listed.list.members, 1).into_iter();
        whole
            .map(|(group, survivors)| CompletedGroup {
                group,
                unmasking: unmaskings
                    .remove(&group)
                    .expect("a survivor dealt, so that its group has masks"),
                cohort: masked.weight(group),
                parts: masked.parts(&survivors),
            })
            .collect()
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.listed.survivors.0.keys(), |member| {
            self.taken.contains_key(member)
        })
    }
}
