//! From nothing to a pinned roster: the phases before the first round.

use std::sync::Arc;

use crate::ids::{RoundNumber, RunId};
use crate::plan::{Roster, RunPlan, SignedPlan};
use crate::round::participant::RoundContext;

use super::effect::{MemberEffect, Prepared};
use super::error::MemberError;
use super::pin::RosterPin;
use super::pinned::PinnedRun;
use super::planned::{PlannedRun, same_run};
use super::settings::MemberSettings;

/// The phase `P` that an input leads to, with the effects; or the run's early end.
type PhaseStep<P> = Result<(P, Vec<MemberEffect>), MemberError>;

/// No plan was shown yet.
pub(super) struct AwaitPlan;

impl AwaitPlan {
    /// Accepts the plan where it is signed and meets the floors.
    pub(super) fn plan(
        self,
        signed: SignedPlan,
        settings: &MemberSettings,
    ) -> PhaseStep<AwaitWork> {
        let (id, plan) = signed.verify(&settings.aggregator)?;
        settings.floors.admit(&plan)?;
        settings.check_weight(&plan)?;
        let phase = AwaitWork { id, plan };
        let prepare = phase.prepare();
        Ok((phase, vec![prepare]))
    }
}

/// The plan is accepted; base digest and first adapter are being made.
pub(super) struct AwaitWork {
    id: RunId,
    plan: RunPlan,
}

impl AwaitWork {
    /// The plan again: asks for the work again.
    pub(super) fn plan(self, signed: SignedPlan, settings: &MemberSettings) -> PhaseStep<Self> {
        same_run(self.id, signed, settings)?;
        let prepare = self.prepare();
        Ok((self, vec![prepare]))
    }

    /// Base digest and first adapter are there: the member is ready.
    pub(super) fn prepared(self, prepared: Prepared) -> (AwaitRoster, Vec<MemberEffect>) {
        let phase = AwaitRoster(PlannedRun::new(self.id, self.plan, prepared));
        let ready = phase.0.ready();
        (phase, vec![ready])
    }

    fn prepare(&self) -> MemberEffect {
        MemberEffect::Prepare {
            run: self.id,
            plan: Box::new(self.plan.clone()),
        }
    }
}

/// The member is ready and waits for the others.
pub(super) struct AwaitRoster(PlannedRun);

impl AwaitRoster {
    /// The plan again, after a broken connection.
    pub(super) fn plan(self, signed: SignedPlan, settings: &MemberSettings) -> PhaseStep<Self> {
        let effects = self.0.plan(signed, settings)?;
        Ok((self, effects))
    }

    /// Pins the roster, and finds this member on it.
    pub(super) fn roster(
        self,
        roster: Roster,
        settings: &MemberSettings,
        pin: &mut dyn RosterPin,
    ) -> PhaseStep<PinnedRun> {
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
            rounds: RoundNumber(run.plan.rounds),
            weight: settings.weight(&run.plan),
            highest_class: run.plan.aggregation.highest_class(),
            contributors: minimum.max(settings.floors.contributors),
            roster: roster.clone(),
        };
        let pinned = PinnedRun::new(run, Arc::new(context));
        let effects = vec![MemberEffect::Pinned(Box::new(roster))];
        Ok((pinned, effects))
    }
}
