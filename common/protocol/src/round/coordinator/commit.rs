//! The phase that collects the commitments to the beacon, where neighbours or groups are drawn from
//! one.

use std::collections::BTreeMap;

use crate::ids::MemberIndex;
use crate::wire::messages::{Commitments, PhaseName, ToMember};
use fedlora_common::digest::Digest;

use super::event::{CoordinatorEffect, EventKind};
use super::keys::CollectKeys;
use super::reject::Reject;
use super::setup::RoundSetup;
use super::transition::{Transition, View, missing};

/// The commitments taken so far.
#[derive(Debug, Default)]
pub(super) struct CollectCommitments {
    taken: BTreeMap<MemberIndex, Digest>,
}

impl CollectCommitments {
    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        commitment: Digest,
    ) -> Result<EventKind, Reject> {
        if setup.roster.get(from).is_none() || self.taken.contains_key(&from) {
            return Err(Reject::NotAwaited { member: from });
        }
        Ok(EventKind::Committed(from, commitment))
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectKeys> {
        if let EventKind::Committed(from, commitment) = event {
            self.taken.insert(from, commitment);
        }
        if !view.closes(&self.awaited(view.setup)) {
            return Transition::Stay(self);
        }
        if let Some(end) = view.too_few(PhaseName::Commit, self.taken.len()) {
            return Transition::End(end);
        }
        let members: Vec<_> = self.taken.keys().copied().collect();
        let next = CollectKeys::after(self.contributors(view), members);
        let request = next.request(view.setup);
        let effects = next
            .members(view.setup)
            .into_iter()
            .map(|member| CoordinatorEffect::Send(member, request.clone()))
            .collect();
        Transition::Next(next, effects)
    }

    /// One more than may collude: the beacon fails where one of them does not open, so rather
    /// those that have not held up a round before.
    fn contributors(&self, view: View<'_>) -> Commitments {
        let mut members: Vec<_> = self.taken.iter().collect();
        members.sort_by_key(|(member, _)| {
            (
                view.left.contains(member) || view.setup.offenders.contains(**member),
                **member,
            )
        });
        let needed = view.setup.policy.colluders() + 1;
        let chosen = members.into_iter().take(needed);
        Commitments(
            chosen
                .map(|(member, commitment)| (*member, *commitment))
                .collect(),
        )
    }

    pub(super) fn request(&self, setup: &RoundSetup) -> ToMember {
        ToMember::Open(setup.open.clone())
    }

    pub(super) fn awaited(&self, setup: &RoundSetup) -> Vec<MemberIndex> {
        let all: Vec<_> = setup.roster.indices().collect();
        missing(&all, |member| self.taken.contains_key(member))
    }
}
