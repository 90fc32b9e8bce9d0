//! The phase that collects the revealed shares (M5), until they recover the masks.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::shamir::{Coordinate, Share};
use crate::ids::MemberIndex;
use crate::secagg::{Revealed, Unmasking};
use crate::wire::Unverified;
use crate::wire::messages::{
    Confirmation, PhaseName, RevealedShare, RoundFailure, RoundResult, Survivors, ToMember,
};
use fedlora_common::digest::Digest;

use super::cohort::CohortMasks;
use super::event::{Completed, CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::transition::{Transition, View, dropped_from, missing};

/// The shares taken so far.
#[derive(Debug)]
pub(super) struct CollectReveals {
    masks: CohortMasks,
    list: Survivors,
    digest: Digest,
    confirmations: Vec<Unverified<Confirmation>>,
    taken: BTreeMap<MemberIndex, BTreeMap<MemberIndex, RevealedShare>>,
}

impl CollectReveals {
    pub(super) fn new(
        masks: CohortMasks,
        list: Survivors,
        digest: Digest,
        confirmations: Vec<Unverified<Confirmation>>,
    ) -> Self {
        Self {
            masks,
            list,
            digest,
            confirmations,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn survivors(&self) -> impl Iterator<Item = MemberIndex> {
        self.list.0.keys().copied()
    }

    /// The survivor list, for a member that has not seen it.
    pub(super) fn list(&self) -> ToMember {
        ToMember::Survivors(self.list.clone())
    }

    pub(super) fn request(&self) -> ToMember {
        ToMember::Confirmations(self.confirmations.clone())
    }

    pub(super) fn decide(
        &self,
        from: MemberIndex,
        shares: BTreeMap<MemberIndex, RevealedShare>,
    ) -> Result<EventKind, Reject> {
        if !self.list.0.contains_key(&from) || self.taken.contains_key(&from) {
            return Err(Reject::NotAwaited { member: from });
        }
        let unasked = shares.iter().find(|(owner, share)| {
            let survives = self.list.0.contains_key(owner);
            !self.masks.committed.contains_key(owner)
                || survives != matches!(share, RevealedShare::SelfMask(_))
        });
        match unasked {
            Some((&owner, _)) => Err(Reject::Share {
                member: from,
                owner,
            }),
            None => Ok(EventKind::Revealed(from, shares)),
        }
    }

    pub(super) fn apply(mut self, view: View<'_>, event: EventKind) -> Transition<Self, ()> {
        if let EventKind::Revealed(from, shares) = event {
            self.taken.insert(from, shares);
        }
        if let Some(unmasking) = self.recover(view.setup.policy.threshold()) {
            return Transition::End(CoordinatorEffect::Unmask(Box::new(Completed {
                unmasking,
                survivors: self.survivors().collect(),
                dropped: dropped_from(view.setup, &self.list),
                transcript: RoundResult::transcript_of(&self.masks.transcript, &self.digest),
                cohort: self.masks.cohort(),
                parts: self.masks.parts(&self.list),
            })));
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        let threshold = view.setup.policy.threshold();
        Transition::End(CoordinatorEffect::Fail(if self.taken.len() < threshold {
            RoundFailure::Quorum {
                phase: PhaseName::Reveal,
                got: self.taken.len() as u16,
                needed: threshold as u16,
            }
        } else {
            RoundFailure::Recovery
        }))
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.list.0.keys(), |member| self.taken.contains_key(member))
    }

    /// Recovers the masks from all shares taken. Where enough shares fail to recover them, one
    /// holder's may be forged, so each holder is left out in turn.
    fn recover(&self, threshold: usize) -> Option<Unmasking> {
        if self.taken.len() < threshold {
            return None;
        }
        std::iter::once(None)
            .chain(self.taken.keys().map(Some))
            .find_map(|left_out| self.recover_without(left_out, threshold))
    }

    fn recover_without(
        &self,
        left_out: Option<&MemberIndex>,
        threshold: usize,
    ) -> Option<Unmasking> {
        let mut revealed: BTreeMap<MemberIndex, Revealed> = BTreeMap::new();
        for (holder, shares) in &self.taken {
            if Some(holder) == left_out {
                continue;
            }
            let coordinate = Coordinate::of_place(usize::from(holder.0)).ok()?;
            for (&owner, share) in shares {
                let (RevealedShare::SelfMask(bytes) | RevealedShare::MaskSecret(bytes)) = share;
                revealed
                    .entry(owner)
                    .or_default()
                    .insert(coordinate, Share::from_bytes(*bytes));
            }
        }
        let survivors: BTreeSet<_> = self.survivors().collect();
        Unmasking::recover(
            &self.masks.committed,
            &survivors,
            &revealed,
            threshold,
            &self.masks.transcript,
        )
        .ok()
    }
}
