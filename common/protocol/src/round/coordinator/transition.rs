//! What a phase may look at when an event is applied to it, and what that leads to.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{MemberIndex, MemberSet};
use crate::secagg::Groups;
use crate::wire::messages::{PhaseName, RoundFailure};

use super::event::CoordinatorEffect;
use super::setup::RoundSetup;

/// What applying an event to the phase `P` leads to; `N` is the phase after it.
#[expect(
    clippy::large_enum_variant,
    reason = "made and consumed within one call"
)]
pub(super) enum Transition<P, N> {
    /// The phase continues.
    Stay(P),
    /// The phase continues, but not for longer than this.
    Hurry(P, Duration),
    /// The phase is over; the next begins.
    Next(N, Vec<CoordinatorEffect>),
    /// The round ends with this effect.
    End(CoordinatorEffect),
}

/// What a phase may look at beside itself.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) setup: &'a RoundSetup,
    pub(super) left: &'a BTreeSet<MemberIndex>,
    pub(super) time_up: bool,
}

impl View<'_> {
    /// Whether the phase closes: its time is up, or it waits for no member.
    pub(super) fn closes(&self, awaited: &[MemberIndex]) -> bool {
        let waits_for = |member: &MemberIndex| {
            !self.left.contains(member) && !self.setup.offenders.contains(*member)
        };
        self.time_up || !awaited.iter().any(waits_for)
    }

    /// The failure of a phase that closed with fewer members than the quorum.
    pub(super) fn too_few(&self, phase: PhaseName, got: usize) -> Option<CoordinatorEffect> {
        let failure = self.below_quorum(phase, got);
        failure.map(CoordinatorEffect::Fail)
    }

    fn below_quorum(&self, phase: PhaseName, got: usize) -> Option<RoundFailure> {
        let needed = self.setup.policy.quorum();
        (got < needed).then_some(RoundFailure::Quorum {
            phase,
            got: got as u16,
            needed: needed as u16,
        })
    }

    /// Those of `members` whose groups have enough of them for a sum.
    ///
    /// # Errors
    /// The failure of a phase that leaves too few such groups, or members of them.
    pub(super) fn in_whole_groups(
        &self,
        phase: PhaseName,
        groups: &Groups,
        members: &MemberSet,
    ) -> Result<MemberSet, RoundFailure> {
        let policy = self.setup.policy.groups();
        let whole = groups.whole(members, policy.minimum());
        if whole.len() < policy.needed() {
            return Err(RoundFailure::Groups {
                phase,
                got: whole.len() as u16,
                needed: policy.needed() as u16,
            });
        }
        let kept: MemberSet = whole
            .iter()
            .flat_map(|(_, members)| members.iter())
            .collect();
        match self.below_quorum(phase, kept.len()) {
            Some(failure) => Err(failure),
            None => Ok(kept),
        }
    }
}

/// The expected members that have not answered, in order.
pub(super) fn missing<'a>(
    expected: impl IntoIterator<Item = &'a MemberIndex>,
    answered: impl Fn(&MemberIndex) -> bool,
) -> Vec<MemberIndex> {
    expected
        .into_iter()
        .filter(|member| !answered(member))
        .copied()
        .collect()
}

/// Members of the roster that are not among `survivors`.
pub(super) fn dropped_from(setup: &RoundSetup, survivors: &MemberSet) -> Vec<MemberIndex> {
    setup
        .roster
        .indices()
        .filter(|member| !survivors.contains(*member))
        .collect()
}
