//! The phase that collects the masked updates (M3). The shell stores the vectors; the phase
//! holds only whose they are.

use std::collections::BTreeMap;

use crate::fixed::WeightClass;
use crate::ids::MemberIndex;
use crate::secagg::Committed;
use crate::wire::Unverified;
use crate::wire::messages::{Keys, PhaseName, SealedShares, Survivors, ToMember, UpdateClaim};
use fedlora_common::digest::Digest;

use super::cohort::CohortMasks;
use super::confirm::CollectConfirmations;
use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::setup::RoundSetup;
use super::transition::{Transition, View, missing};

/// The updates taken so far.
#[derive(Debug)]
pub(super) struct CollectUpdates {
    /// Every member that shared its secrets: those whose masks are in play (U2).
    committed: BTreeMap<MemberIndex, Committed>,
    shares: BTreeMap<MemberIndex, BTreeMap<MemberIndex, SealedShares>>,
    /// Of every member that sent keys (U1).
    weights: BTreeMap<MemberIndex, WeightClass>,
    transcript: Digest,
    taken: Survivors,
}

impl CollectUpdates {
    pub(super) fn new(
        keys: BTreeMap<MemberIndex, Unverified<Keys>>,
        transcript: Digest,
        shares: BTreeMap<MemberIndex, BTreeMap<MemberIndex, SealedShares>>,
    ) -> Self {
        let weights = keys
            .iter()
            .map(|(member, keys)| (*member, keys.claimed().weight))
            .collect();
        let committed = keys
            .iter()
            .filter(|(member, _)| shares.contains_key(member))
            .map(|(member, keys)| {
                let keys = keys.claimed();
                let committed = Committed {
                    mask_key: keys.masking,
                    self_mask: keys.self_mask,
                };
                (*member, committed)
            })
            .collect();
        Self {
            committed,
            shares,
            weights,
            transcript,
            taken: Survivors::default(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = MemberIndex> {
        self.committed.keys().copied()
    }

    /// What the others sealed for one holder.
    pub(super) fn request(&self, holder: MemberIndex) -> ToMember {
        ToMember::PeerShares(
            self.shares
                .iter()
                .filter(|(sender, _)| **sender != holder)
                .filter_map(|(sender, sealed)| Some((*sender, sealed.get(&holder)?.clone())))
                .collect(),
        )
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        claim: Unverified<UpdateClaim>,
    ) -> Result<EventKind, Reject> {
        let claimed = claim.claimed().member;
        if claimed != from {
            return Err(Reject::Impersonation { from, claimed });
        }
        let entry = setup
            .roster
            .get(from)
            .filter(|_| self.committed.contains_key(&from) && !self.taken.0.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        claim
            .verify(&entry.identity, &setup.digest)
            .map(|verified| EventKind::UpdateTaken(verified.into_body()))
            .map_err(|_| Reject::Signature { member: from })
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
        effects: &mut Vec<CoordinatorEffect>,
    ) -> Transition<Self, CollectConfirmations> {
        if let EventKind::UpdateTaken(claim) = event {
            self.taken.0.insert(claim.member, claim.vector);
            effects.push(CoordinatorEffect::Accumulate(claim.member));
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        if let Some(end) = view.too_few(PhaseName::Updates, self.taken.0.len()) {
            return Transition::End(end);
        }
        let masks = CohortMasks {
            committed: self.committed,
            weights: self.weights,
            transcript: self.transcript,
        };
        let next = CollectConfirmations::new(view.setup, masks, self.taken);
        let request = next.request();
        let more = next
            .survivors()
            .map(|member| CoordinatorEffect::Send(member, request.clone()))
            .collect();
        Transition::Next(next, more)
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.committed.keys(), |member| {
            self.taken.0.contains_key(member)
        })
    }
}
