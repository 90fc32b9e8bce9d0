//! The phase that collects the keys (M1), and the opened parts of the beacon.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::agreement::AgreementPublic;
use crate::ids::MemberIndex;
use crate::round::joined::Joined;
use crate::wire::Unverified;
use crate::wire::messages::{
    BeaconOpening, Cohort, Commitments, Keys, PhaseName, RoundFailure, ToMember, keys_context,
};
use fedlora_common::digest::Digest;

use super::cohort::JoinedCohort;
use super::event::{CoordinatorEffect, EventKind};
use super::reject::Reject;
use super::setup::RoundSetup;
use super::shares::CollectShares;
use super::transition::{Transition, View, missing};

/// The keys taken so far. They are stored with their signatures, because the members check
/// them again; they were verified before they became an event.
#[derive(Debug)]
pub(super) struct CollectKeys {
    /// Where there is a beacon: what it comes from, and who committed.
    beacon: Option<(Commitments, Vec<MemberIndex>)>,
    openings: BTreeMap<MemberIndex, BeaconOpening>,
    taken: BTreeMap<MemberIndex, Unverified<Keys>>,
    seen: BTreeSet<AgreementPublic>,
}

impl CollectKeys {
    /// The first phase, where nothing is drawn from a beacon.
    pub(super) fn first() -> Self {
        Self::new(None)
    }

    /// The phase after `members` have committed, some of them as contributors.
    pub(super) fn after(contributors: Commitments, members: Vec<MemberIndex>) -> Self {
        Self::new(Some((contributors, members)))
    }

    fn new(beacon: Option<(Commitments, Vec<MemberIndex>)>) -> Self {
        Self {
            beacon,
            openings: BTreeMap::new(),
            taken: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Those that may send keys.
    pub(super) fn members(&self, setup: &RoundSetup) -> Vec<MemberIndex> {
        match &self.beacon {
            None => setup.roster.indices().collect(),
            Some((_, members)) => members.clone(),
        }
    }

    pub(super) fn request(&self, setup: &RoundSetup) -> ToMember {
        match &self.beacon {
            None => ToMember::Open(setup.open.clone()),
            Some((commitments, _)) => ToMember::Commitments(commitments.clone()),
        }
    }

    pub(super) fn decide(
        &self,
        setup: &RoundSetup,
        from: MemberIndex,
        keys: Unverified<Keys>,
        opening: Option<BeaconOpening>,
    ) -> Result<EventKind, Reject> {
        let claimed = keys.claimed().member;
        if claimed != from {
            return Err(Reject::Impersonation { from, claimed });
        }
        let entry = setup
            .roster
            .get(from)
            .filter(|_| self.awaits(setup, from))
            .ok_or(Reject::NotAwaited { member: from })?;
        let verified = keys
            .verify(&entry.identity, &self.context(setup))
            .map_err(|_| Reject::Signature { member: from })?;
        let own = verified.body();
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
        // Every neighbour refuses a round with such a key in it: it must not get that far.
        if !own.sealing.is_sound(setup.suite) || !own.masking.is_sound(setup.suite) {
            return Err(Reject::WeakKey { member: from });
        }
        let repeated = own.sealing == own.masking
            || self.seen.contains(&own.sealing)
            || self.seen.contains(&own.masking);
        if repeated {
            return Err(Reject::RepeatedKey { member: from });
        }
        let opening = self.check_opening(setup, from, opening)?;
        Ok(EventKind::KeysTaken(verified.unverified().clone(), opening))
    }

    /// The opening of a contributor must be what it committed to; others have none.
    fn check_opening(
        &self,
        setup: &RoundSetup,
        member: MemberIndex,
        opening: Option<BeaconOpening>,
    ) -> Result<Option<BeaconOpening>, Reject> {
        let Some((commitments, _)) = &self.beacon else {
            return Ok(None);
        };
        if !commitments.0.contains_key(&member) {
            return Ok(None);
        }
        let opening = opening.ok_or(Reject::Beacon { member })?;
        let entry = setup.roster.get(member);
        let good = entry.is_some_and(|entry| {
            commitments.is_opened(&setup.digest, member, &entry.identity, &opening)
        });
        if good {
            Ok(Some(opening))
        } else {
            Err(Reject::Beacon { member })
        }
    }

    pub(super) fn apply(
        mut self,
        view: View<'_>,
        event: EventKind,
    ) -> Transition<Self, CollectShares> {
        if let EventKind::KeysTaken(keys, opening) = event {
            let member = keys.claimed().member;
            let Keys {
                sealing, masking, ..
            } = keys.claimed();
            self.seen.extend([sealing.clone(), masking.clone()]);
            self.openings
                .extend(opening.map(|opening| (member, opening)));
            self.taken.insert(member, keys);
        }
        if !view.closes(&self.awaited(view.setup)) {
            return Transition::Stay(self);
        }
        // A member that sent keys and left since is kept: it shares nothing, so it drops
        // out in the next phase at no cost.
        if let Some(end) = view.too_few(PhaseName::Keys, self.taken.len()) {
            return Transition::End(end);
        }
        let setup = view.setup;
        let weights = self
            .taken
            .iter()
            .map(|(member, keys)| (*member, keys.claimed().weight));
        let cohort = Cohort::new(&weights.collect());
        let beacon = match &self.beacon {
            None => None,
            Some((commitments, _)) => {
                let mut contributors = commitments.0.keys();
                let silent = contributors.find(|member| !self.openings.contains_key(member));
                if let Some(&member) = silent {
                    let failure = RoundFailure::Beacon { member };
                    return Transition::End(CoordinatorEffect::Fail(failure));
                }
                let beacon = commitments.beacon(&setup.digest, &self.openings);
                Some((commitments.digest(&setup.digest), beacon))
            }
        };
        let joined = Joined { cohort, beacon };
        let graph = joined
            .grouped(&setup.policy)
            .expect("the plan's numbers give a graph");
        let cohort = JoinedCohort {
            transcript: joined.transcript(&setup.digest),
            context: joined.context(&setup.digest),
            joined,
            graph,
            keys: self.taken,
        };
        let next = CollectShares::new(cohort, self.openings);
        let effects = next
            .members()
            .map(|member| CoordinatorEffect::Send(member, next.request(member)))
            .collect();
        Transition::Next(next, effects)
    }

    fn context(&self, setup: &RoundSetup) -> Digest {
        let commitments = self
            .beacon
            .as_ref()
            .map(|(all, _)| all.digest(&setup.digest));
        keys_context(&setup.digest, commitments.as_ref())
    }

    fn awaits(&self, setup: &RoundSetup, member: MemberIndex) -> bool {
        self.members(setup).contains(&member) && !self.taken.contains_key(&member)
    }

    pub(super) fn awaited(&self, setup: &RoundSetup) -> Vec<MemberIndex> {
        missing(&self.members(setup), |member| {
            self.taken.contains_key(member)
        })
    }
}
