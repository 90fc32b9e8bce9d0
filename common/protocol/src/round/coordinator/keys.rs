//! The phase that collects the keys (M1).

use std::collections::BTreeMap;

use crate::ids::MemberIndex;
use crate::wire::Unverified;
use crate::wire::messages::{Keys, PhaseName, keys_digest};

use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::setup::RoundSetup;
use super::shares::CollectShares;
use super::transition::{Transition, View, missing};

/// The keys taken so far. They are stored with their signatures, because the members check
/// them again; they were verified before they became an event.
#[derive(Debug, Default)]
pub(super) struct CollectKeys {
    taken: BTreeMap<MemberIndex, Unverified<Keys>>,
}

impl CollectKeys {
    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        keys: Unverified<Keys>,
    ) -> Result<EventKind, Reject> {
        let claimed = keys.claimed().member;
        if claimed != from {
            return Err(Reject::Impersonation { from, claimed });
        }
        let entry = setup
            .roster
            .get(from)
            .filter(|_| !self.taken.contains_key(&from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let verified = keys
            .verify(&entry.identity, &setup.digest)
            .map_err(|_| Reject::Signature { member: from })?;
        let own = *verified.body();
        if own.weight > setup.highest_class {
            return Err(Reject::Weight {
                member: from,
                got: own.weight.class(),
            });
        }
        if own.revealed >= setup.open.round {
            return Err(Reject::RevealedBefore {
                member: from,
                revealed: own.revealed,
            });
        }
        // Every member refuses a round with such a key in it: it must not get that far.
        if !own.sealing.is_sound() || !own.masking.is_sound() {
            return Err(Reject::WeakKey { member: from });
        }
        let repeated = own.sealing == own.masking
            || self.taken.values().map(Unverified::claimed).any(|other| {
                [other.sealing, other.masking]
                    .iter()
                    .any(|key| *key == own.sealing || *key == own.masking)
            });
        if repeated {
            return Err(Reject::RepeatedKey { member: from });
        }
        Ok(EventKind::KeysTaken(verified.unverified().clone()))
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectShares> {
        if let EventKind::KeysTaken(keys) = event {
            self.taken.insert(keys.claimed().member, keys);
        }
        if !view.closes(&self.awaited(view.setup)) {
            return Transition::Stay(self);
        }
        // A member that sent keys and left since is kept: it shares nothing, so it drops
        // out in the next phase at no cost.
        if let Some(end) = view.too_few(PhaseName::Keys, self.taken.len()) {
            return Transition::End(end);
        }
        let transcript = keys_digest(
            &view.setup.digest,
            self.taken.values().map(Unverified::claimed),
        );
        let next = CollectShares::new(self.taken, transcript);
        let request = next.request();
        let effects = next
            .members()
            .map(|member| CoordinatorEffect::Send(member, request.clone()))
            .collect();
        Transition::Next(next, effects)
    }

    pub(super) fn awaited(&self, setup: &RoundSetup) -> Vec<MemberIndex> {
        let all: Vec<_> = setup.roster.indices().collect();
        missing(&all, |member| self.taken.contains_key(member))
    }
}
