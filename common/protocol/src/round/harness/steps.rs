//! The steps of an [`Adversary`](super::Adversary).

use crate::ids::MemberIndex;

/// The member whose log may be restored from an older copy.
pub(crate) const ROLLED_BACK: MemberIndex = MemberIndex(0);

/// A set of up to 8 members: a bit each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen(pub(crate) u8);

impl Chosen {
    pub(crate) const ALL: Self = Self(0xff);
    pub(crate) const NONE: Self = Self(0);

    pub(super) fn has(self, member: MemberIndex) -> bool {
        self.0 >> member.0 & 1 == 1
    }
}

/// One step of the adversary. Runs are 0 and 1, both of the same plan and first adapter.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Opens an attempt, and takes it as far as members go along.
    Attempt(PlannedAttempt),
    /// Shows the signatures of the run's last attempt to members, for the first time or again.
    Confirm(usize, Chosen),
    /// Signs a result of the run's last attempt, or of none; members see it before the next one.
    Publish(usize, NextAdapter),
    /// Members' processes begin anew, with the logs that they have.
    Restart(Chosen),
    /// Copies the log of [`ROLLED_BACK`].
    Keep,
    /// Puts the copy back, an empty log where there is none; that member's process begins anew.
    Restore,
}

/// The adapter that a published result leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NextAdapter {
    Moved,
    Same,
    First,
}

/// What is wrong with an M0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum OddOpening {
    None,
    /// The number of the attempt before.
    SameAttempt,
    /// The round after the next.
    RoundAhead,
    /// The run's first adapter.
    FirstAdapter,
    /// One signature fewer than confirm a list.
    LowConfirmations,
}

/// An attempt at the next round of a run. Where there are two of something, members are shown the
/// first but for those that are chosen for the second.
#[derive(Debug, Clone)]
pub(crate) struct PlannedAttempt {
    pub(crate) run: usize,
    pub(crate) odd: OddOpening,
    pub(crate) opened: Chosen,
    /// Whose keys are in the cohort.
    pub(crate) cohorts: [Chosen; 2],
    pub(crate) second_cohort: Chosen,
    /// Whose shares are handed on.
    pub(crate) dealt: Chosen,
    /// Among whom masks are said to be.
    pub(crate) dealers: [Chosen; 2],
    pub(crate) second_dealers: Chosen,
    /// Who is on the survivor list, with a made-up vector where there was no upload.
    pub(crate) lists: [Chosen; 2],
    pub(crate) second_list: Chosen,
    /// To whom the signatures are shown.
    pub(crate) confirmed: Chosen,
}

impl PlannedAttempt {
    /// All take part, and are on one list.
    pub(crate) fn honest(run: usize) -> Self {
        let (all, none) = (Chosen::ALL, Chosen::NONE);
        Self {
            run,
            odd: OddOpening::None,
            opened: all,
            cohorts: [all; 2],
            second_cohort: none,
            dealt: all,
            dealers: [all; 2],
            second_dealers: none,
            lists: [all; 2],
            second_list: none,
            confirmed: all,
        }
    }
}
