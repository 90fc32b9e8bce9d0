//! From nothing to a pinned roster: the phases before the first round.

use std::sync::Arc;

use fedlora_adapter::Adapter;

use crate::ids::RunId;
use crate::plan::{Roster, RunPlan, SignedPlan};
use crate::round::participant::RoundContext;
use crate::wire::messages::{Ready, ToAggregator};

use super::effect::{Effect, Prepared};
use super::error::MemberError;
use super::pin::RosterPin;
use super::pinned::PinnedRun;
use super::{MemberSettings, Phase, Step};

/// No plan was shown yet.
pub(super) struct AwaitPlan;

impl AwaitPlan {
    /// Accepts the plan where it is signed and meets the floors.
    pub(super) fn plan(self, signed: SignedPlan, settings: &MemberSettings) -> Step {
        let (id, plan) = signed.verify(&settings.aggregator)?;
        settings.floors.admit(&plan)?;
        let phase = AwaitWork { id, plan };
        let prepare = phase.prepare();
        Ok((Phase::Work(Box::new(phase)), vec![prepare]))
    }
}

/// The plan is accepted; base digest and first adapter are being made.
pub(super) struct AwaitWork {
    id: RunId,
    plan: RunPlan,
}

impl AwaitWork {
    /// The plan again: asks for the work again.
    pub(super) fn plan(self: Box<Self>, signed: SignedPlan, settings: &MemberSettings) -> Step {
        same_run(self.id, signed, settings)?;
        let prepare = self.prepare();
        Ok((Phase::Work(self), vec![prepare]))
    }

    /// Base digest and first adapter are there: the member is ready.
    pub(super) fn prepared(self, prepared: Prepared) -> (Phase, Vec<Effect>) {
        let phase = AwaitRoster(PlannedRun {
            ready: Ready {
                base: prepared.base,
                layout: prepared.adapter.layout().clone(),
                adapter: prepared.adapter.digest(),
            },
            id: self.id,
            plan: self.plan,
            adapter: prepared.adapter,
        });
        let ready = phase.0.ready();
        (Phase::Roster(Box::new(phase)), vec![ready])
    }

    fn prepare(&self) -> Effect {
        Effect::Prepare {
            run: self.id,
            plan: Box::new(self.plan.clone()),
        }
    }
}

/// A run whose plan is accepted, with the newest global adapter.
pub(super) struct PlannedRun {
    pub(super) id: RunId,
    pub(super) plan: RunPlan,
    pub(super) adapter: Adapter,
    /// What this member said of itself: with the first adapter, whatever round it is, since the
    /// aggregator knows which one is newest.
    ready: Ready,
}

impl PlannedRun {
    /// The plan again, after a broken connection.
    pub(super) fn plan(
        &self,
        signed: SignedPlan,
        settings: &MemberSettings,
    ) -> Result<Vec<Effect>, MemberError> {
        same_run(self.id, signed, settings)?;
        Ok(vec![self.ready()])
    }

    /// Checks the roster's size, and pins it. Floors and fixed-point format were checked for
    /// the plan's number of members.
    pub(super) fn pin(&self, roster: &Roster, pin: &mut dyn RosterPin) -> Result<(), MemberError> {
        if roster.len() != self.plan.members {
            return Err(MemberError::RosterSize {
                got: roster.len(),
                planned: self.plan.members,
            });
        }
        Ok(pin.pin(roster)?)
    }

    fn ready(&self) -> Effect {
        Effect::Send(ToAggregator::Ready(self.ready.clone()))
    }
}

/// The member is ready and waits for the others.
pub(super) struct AwaitRoster(PlannedRun);

impl AwaitRoster {
    /// The plan again, after a broken connection.
    pub(super) fn plan(self: Box<Self>, signed: SignedPlan, settings: &MemberSettings) -> Step {
        let effects = self.0.plan(signed, settings)?;
        Ok((Phase::Roster(self), effects))
    }

    /// Pins the roster, and finds this member on it.
    pub(super) fn roster(
        self: Box<Self>,
        roster: Roster,
        settings: &MemberSettings,
        pin: &mut dyn RosterPin,
    ) -> Step {
        let run = self.0;
        run.pin(&roster, pin)?;
        let own = settings.identity.public();
        let me = roster
            .index_of(&settings.name)
            .filter(|me| roster.get(*me).is_some_and(|entry| entry.identity == own))
            .ok_or(MemberError::NotOnRoster)?;
        let minimum = run.plan.policy()?.minimum();
        let context = RoundContext {
            run: run.id,
            me,
            identity: Arc::clone(&settings.identity),
            plan: run.plan.digest(),
            contributors: minimum.max(settings.floors.contributors),
            roster: roster.clone(),
        };
        let pinned = PinnedRun::new(run, Arc::new(context));
        let effects = vec![Effect::Pinned(Box::new(roster))];
        Ok((Phase::Pinned(Box::new(pinned)), effects))
    }
}

fn same_run(id: RunId, signed: SignedPlan, settings: &MemberSettings) -> Result<(), MemberError> {
    let (got, _) = signed.verify(&settings.aggregator)?;
    if got == id {
        Ok(())
    } else {
        Err(MemberError::OtherRun)
    }
}
