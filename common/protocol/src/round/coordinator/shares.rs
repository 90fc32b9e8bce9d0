//! The phase that collects the sealed shares (M2).

use std::collections::BTreeMap;

use crate::crypto::seal;
use crate::ids::MemberIndex;
use crate::wire::Unverified;
use crate::wire::messages::{Keys, PhaseName, SealedShares, ToMember};
use fedlora_common::digest::Digest;

use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::transition::{Transition, View, missing};
use super::updates::CollectUpdates;

/// Two 32-byte shares, sealed.
const SEALED_LEN: usize = 64 + seal::OVERHEAD;

/// The sealed shares taken so far.
#[derive(Debug)]
pub(super) struct CollectShares {
    keys: BTreeMap<MemberIndex, Unverified<Keys>>,
    transcript: Digest,
    taken: BTreeMap<MemberIndex, BTreeMap<MemberIndex, SealedShares>>,
}

impl CollectShares {
    pub(super) fn new(keys: BTreeMap<MemberIndex, Unverified<Keys>>, transcript: Digest) -> Self {
        Self {
            keys,
            transcript,
            taken: BTreeMap::new(),
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = MemberIndex> {
        self.keys.keys().copied()
    }

    pub(super) fn request(&self) -> ToMember {
        ToMember::PeerKeys(self.keys.values().cloned().collect())
    }

    pub(super) fn decide(
        &self,
        from: MemberIndex,
        shares: BTreeMap<MemberIndex, SealedShares>,
    ) -> Result<EventKind, Reject> {
        if !self.keys.contains_key(&from) || self.taken.contains_key(&from) {
            return Err(Reject::NotAwaited { member: from });
        }
        let holders = self.keys.keys().filter(|holder| **holder != from);
        if !holders.eq(shares.keys()) || shares.values().any(|sealed| sealed.0.len() != SEALED_LEN)
        {
            return Err(Reject::Shares { member: from });
        }
        Ok(EventKind::SharesTaken(from, shares))
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectUpdates> {
        if let EventKind::SharesTaken(from, shares) = event {
            self.taken.insert(from, shares);
        }
        if !view.closes(&self.awaited()) {
            return Transition::Stay(self);
        }
        if let Some(end) = view.too_few(PhaseName::Shares, self.taken.len()) {
            return Transition::End(end);
        }
        let next = CollectUpdates::new(self.keys, self.transcript, self.taken);
        let effects = next
            .members()
            .map(|member| CoordinatorEffect::Send(member, next.request(member)))
            .collect();
        Transition::Next(next, effects)
    }

    pub(super) fn awaited(&self) -> Vec<MemberIndex> {
        missing(self.keys.keys(), |member| self.taken.contains_key(member))
    }
}
