//! The phase that collects the survivors' signatures on one list (M4).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::crypto::sign::Signature;
use crate::ids::{MemberIndex, MemberSet};
use crate::wire::Unverified;
use crate::wire::messages::{
    ClaimedVector, Confirmation, PhaseName, RoundFailure, SurvivorList, Survivors, ToMember,
};
use fedlora_common::digest::Digest;

use super::cohort::MaskedCohort;
use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::reveal::CollectReveals;
use super::setup::RoundSetup;
use super::transition::{Transition, View, missing};

/// How long the phase waits for more once enough have signed: for who has not signed, its claim
/// goes to all its neighbours.
const LATER_SIGNATURES: Duration = Duration::from_secs(2);

/// The survivors of a round, with the list that they are asked to sign.
#[derive(Debug)]
pub(super) struct ListedCohort {
    pub(super) masked: MaskedCohort,
    /// What holders said that they hold, with their signatures.
    pub(super) held: BTreeMap<MemberIndex, (MemberSet, Signature)>,
    pub(super) survivors: Survivors,
    /// What the survivors claimed of their vectors.
    pub(super) claims: BTreeMap<MemberIndex, ClaimedVector>,
    pub(super) list: SurvivorList,
    pub(super) digest: Digest,
}

impl ListedCohort {
    pub(super) fn survivors(&self) -> impl Iterator<Item = MemberIndex> {
        self.survivors.0.keys().copied()
    }

    /// The list, with the proof that one survivor's vector is on it.
    pub(super) fn request(&self, member: MemberIndex) -> ToMember {
        ToMember::Survivors {
            list: self.list.clone(),
            proof: self.survivors.proof(member),
        }
    }
}

/// The signatures taken so far.
#[derive(Debug)]
pub(super) struct CollectConfirmations {
    listed: ListedCohort,
    taken: BTreeMap<MemberIndex, Signature>,
}

impl CollectConfirmations {
    pub(super) fn new(
        masked: MaskedCohort,
        held: BTreeMap<MemberIndex, (MemberSet, Signature)>,
        claims: BTreeMap<MemberIndex, ClaimedVector>,
    ) -> Self {
        let vectors = claims.iter();
        let survivors = Survivors(vectors.map(|(one, claim)| (*one, claim.vector)).collect());
        let list = survivors.list();
        Self {
            listed: ListedCohort {
                digest: list.digest(&masked.cohort.transcript, &masked.dealers),
                masked,
                held,
                list,
                survivors,
                claims,
            },
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn survivors(&self) -> impl Iterator<Item = MemberIndex> {
        self.listed.survivors()
    }

    pub(super) fn request(&self, member: MemberIndex) -> ToMember {
        self.listed.request(member)
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        signature: Signature,
    ) -> Result<EventKind, Reject> {
        let entry = setup
            .roster
            .get(from)
            .filter(|_| self.listed.list.members.contains(from) && !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let confirmation = Confirmation {
            member: from,
            list: self.listed.digest,
        };
        Unverified::from_parts(confirmation, signature)
            .verify(&entry.identity, &setup.digest)
            .map(|_| EventKind::Confirmed(from, signature))
            .map_err(|_| Reject::Signature { member: from })
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectReveals> {
        if let EventKind::Confirmed(from, signature) = event {
            self.taken.insert(from, signature);
        }
        let enough = self.has_enough(view.setup);
        if !view.closes(&self.awaited()) {
            return if enough {
                Transition::Hurry(self, LATER_SIGNATURES)
            } else {
                Transition::Stay(self)
            };
        }
        if !enough {
            return Transition::End(CoordinatorEffect::Fail(RoundFailure::Quorum {
                phase: PhaseName::Confirm,
                got: self.taken.len() as u16,
                needed: view.setup.policy.confirmations() as u16,
            }));
        }
        // Who has not signed may still reveal.
        let next = CollectReveals::new(self.listed, self.taken);
        let send = |member| CoordinatorEffect::Send(member, next.request(view.setup, member));
        let effects = next.survivors().map(send).collect();
        Transition::Next(next, effects)
    }

    /// Whether the list is confirmed.
    pub(super) fn has_enough(&self, setup: &RoundSetup) -> bool {
        self.taken.len() >= setup.policy.confirmations()
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.listed.survivors.0.keys(), |member| {
            self.taken.contains_key(member)
        })
    }
}
