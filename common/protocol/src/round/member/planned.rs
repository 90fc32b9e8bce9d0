//! A run whose plan this member has accepted: what later phases keep of it.

use fedlora_adapter::Adapter;

use crate::ids::RunId;
use crate::plan::{Roster, RunPlan, SignedPlan};
use crate::wire::messages::{OpenTag, Ready, ToAggregator};

use super::effect::{MemberEffect, Prepared};
use super::error::MemberError;
use super::settings::MemberSettings;

/// A run whose plan is accepted, with the newest global adapter.
pub(super) struct PlannedRun {
    pub(super) id: RunId,
    pub(super) plan: RunPlan,
    pub(super) signed: SignedPlan,
    pub(super) adapter: Adapter,
    /// What this member reports when it is ready. It names the first adapter in every round: the
    /// aggregator knows the newest.
    ready: Ready,
}

impl PlannedRun {
    /// The run once base digest and first adapter are there.
    pub(super) fn new(id: RunId, plan: RunPlan, signed: SignedPlan, prepared: Prepared) -> Self {
        Self {
            ready: Ready {
                base: prepared.base,
                layout: prepared.adapter.layout().clone(),
                adapter: prepared.adapter.digest(),
            },
            id,
            plan,
            signed,
            adapter: prepared.adapter,
        }
    }

    /// The plan again, after a broken connection.
    pub(super) fn plan(
        &self,
        signed: SignedPlan,
        settings: &MemberSettings,
    ) -> Result<Vec<MemberEffect>, MemberError> {
        same_run(self.id, signed, settings)?;
        Ok(vec![self.ready()])
    }

    /// Checks the roster's size. Floors and fixed-point format were checked for the plan's number
    /// of members.
    pub(super) fn check_size(&self, roster: &Roster) -> Result<(), MemberError> {
        if roster.len() != self.plan.members {
            return Err(MemberError::RosterSize {
                got: roster.len(),
                planned: self.plan.members,
            });
        }
        Ok(())
    }

    pub(super) fn ready(&self) -> MemberEffect {
        MemberEffect::Send(ToAggregator::Ready(self.ready.clone()))
    }
}

/// Tells the aggregator that this member has accepted the roster, and the round that it is in.
pub(super) fn accepted(roster: &Roster, round: Option<OpenTag>) -> MemberEffect {
    let roster = roster.digest();
    MemberEffect::Send(ToAggregator::Accepted { roster, round })
}

/// Refuses the plan of another run than the accepted one.
///
/// # Errors
/// A plan that the aggregator did not sign, or [`MemberError::OtherRun`].
pub(super) fn same_run(
    id: RunId,
    signed: SignedPlan,
    settings: &MemberSettings,
) -> Result<(), MemberError> {
    let (got, _) = signed.verify(&settings.aggregator)?;
    if got == id {
        Ok(())
    } else {
        Err(MemberError::OtherRun)
    }
}
