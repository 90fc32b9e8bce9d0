//! The phase that collects the survivors' signatures on one list (M4).

use std::collections::BTreeMap;

use crate::crypto::sign::Signature;
use crate::ids::MemberIndex;
use crate::wire::Unverified;
use crate::wire::messages::{Confirmation, PhaseName, RoundFailure, Survivors, ToMember};
use fedlora_common::digest::Digest;

use super::cohort::CohortMasks;
use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::reveal::CollectReveals;
use super::setup::RoundSetup;
use super::transition::{Transition, View, missing};

/// The signatures taken so far.
#[derive(Debug)]
pub(super) struct CollectConfirmations {
    masks: CohortMasks,
    list: Survivors,
    digest: Digest,
    taken: BTreeMap<MemberIndex, Unverified<Confirmation>>,
}

impl CollectConfirmations {
    pub(super) fn new(setup: &RoundSetup, masks: CohortMasks, list: Survivors) -> Self {
        Self {
            masks,
            digest: list.digest(&setup.digest),
            list,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn survivors(&self) -> impl Iterator<Item = MemberIndex> {
        self.list.0.keys().copied()
    }

    pub(super) fn request(&self) -> ToMember {
        ToMember::Survivors(self.list.clone())
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
            .filter(|_| self.list.0.contains_key(&from) && !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let confirmation = Confirmation {
            member: from,
            list: self.digest,
        };
        Unverified::from_parts(confirmation, signature)
            .verify(&entry.identity, &setup.digest)
            .map(|verified| EventKind::Confirmed(verified.unverified().clone()))
            .map_err(|_| Reject::Signature { member: from })
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectReveals> {
        if let EventKind::Confirmed(confirmation) = event {
            self.taken
                .insert(confirmation.claimed().member, confirmation);
        }
        let needed = view.setup.policy.threshold();
        if self.taken.len() >= needed {
            // Enough to reveal: who has not signed yet may still reveal.
            let next = CollectReveals::new(
                self.masks,
                self.list,
                self.digest,
                self.taken.into_values().collect(),
            );
            let request = next.request();
            let effects = next
                .survivors()
                .map(|member| CoordinatorEffect::Send(member, request.clone()))
                .collect();
            return Transition::Next(next, effects);
        }
        if view.closes(&self.awaited()) {
            return Transition::End(CoordinatorEffect::Fail(RoundFailure::Quorum {
                phase: PhaseName::Confirm,
                got: self.taken.len() as u16,
                needed: needed as u16,
            }));
        }
        Transition::Stay(self)
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.list.0.keys(), |member| self.taken.contains_key(member))
    }
}
