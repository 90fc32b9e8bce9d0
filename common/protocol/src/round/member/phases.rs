//! From nothing to a pinned roster: the phases before the first round.

use std::sync::Arc;

use fedlora_common::digest::Digest;

use crate::ids::{RoundNumber, RunId};
use crate::plan::{Roster, RunPlan, SignedPlan};
use crate::receipt::RunReceipt;
use crate::round::participant::RoundContext;

use super::effect::{MemberEffect, Prepared, RosterQuestion};
use super::error::MemberError;
use super::pin::{PinError, RosterPin};
use super::pinned::PinnedRun;
use super::planned::{PlannedRun, accepted, same_run};
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
        let (id, plan) = signed.clone().verify(&settings.aggregator)?;
        settings.floors.admit(&plan)?;
        settings.check_weight(&plan)?;
        let phase = AwaitWork { id, plan, signed };
        let prepare = phase.prepare();
        Ok((phase, vec![prepare]))
    }
}

/// The plan is accepted; base digest and first adapter are being made.
pub(super) struct AwaitWork {
    id: RunId,
    plan: RunPlan,
    signed: SignedPlan,
}

impl AwaitWork {
    /// The plan again: asks for the work again.
    pub(super) fn plan(self, signed: SignedPlan, settings: &MemberSettings) -> PhaseStep<Self> {
        same_run(self.id, signed, settings)?;
        let prepare = self.prepare();
        Ok((self, vec![prepare]))
    }

    /// Base digest and first adapter are there: the member is ready, unless that is another adapter than
    /// the plan begins from.
    pub(super) fn prepared(self, prepared: Prepared) -> PhaseStep<AwaitRoster> {
        if let Some(expected) = self.plan.start_from {
            let got = prepared.adapter.digest();
            if got != expected {
                return Err(MemberError::OtherStart { got, expected });
            }
        }
        let planned = PlannedRun::new(self.id, self.plan, self.signed, prepared);
        let phase = AwaitRoster(planned);
        let ready = phase.0.ready();
        Ok((phase, vec![ready]))
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

    /// Checks the roster and finds this member on it. Pins it, or asks for consent where this
    /// member has not accepted it.
    pub(super) fn roster(
        self,
        roster: Roster,
        settings: &MemberSettings,
        pin: &mut dyn RosterPin,
    ) -> PhaseStep<ShownRoster> {
        let run = self.0;
        run.check_size(&roster)?;
        let own = settings.identity.public();
        let me = roster
            .index_of(&settings.name)
            .filter(|me| roster.get(*me).is_some_and(|entry| entry.identity == own))
            .ok_or(MemberError::NotOnRoster)?;
        let policy = run.plan.policy()?;
        let context = RoundContext {
            run: run.id,
            me,
            identity: Arc::clone(&settings.identity),
            plan: run.plan.digest(),
            rounds: RoundNumber(run.plan.rounds),
            weight: settings.weight(&run.plan),
            highest_class: run.plan.aggregation.highest_class(),
            contributors: policy.minimum().max(settings.floors.contributors),
            policy,
            suite: run.plan.aggregation.suite,
            roster,
        };
        let phase = AwaitConsent { run, context };
        match pin.pin(&phase.context.roster) {
            Ok(()) => {
                let (pinned, effects) = phase.pinned(settings);
                Ok((ShownRoster::Pinned(Box::new(pinned)), effects))
            }
            Err(PinError::Unaccepted { change, .. }) => {
                let question = RosterQuestion {
                    roster: phase.context.roster.clone(),
                    change,
                };
                let effects = vec![MemberEffect::AskConsent(Box::new(question))];
                Ok((ShownRoster::Consent(Box::new(phase)), effects))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What a roster leads to.
pub(super) enum ShownRoster {
    /// This member has accepted it.
    Pinned(Box<PinnedRun>),
    /// This member is asked.
    Consent(Box<AwaitConsent>),
}

/// The member is asked whether it accepts the roster. Messages of rounds are left out: the
/// aggregator repeats them once the member has accepted.
pub(super) struct AwaitConsent {
    run: PlannedRun,
    context: RoundContext,
}

impl AwaitConsent {
    /// The plan again, after a broken connection.
    pub(super) fn plan(self, signed: SignedPlan, settings: &MemberSettings) -> PhaseStep<Self> {
        let effects = self.run.plan(signed, settings)?;
        Ok((self, effects))
    }

    /// Whether this is the roster that the member is asked about.
    pub(super) fn asks_about(&self, roster: &Digest) -> bool {
        self.context.roster.digest() == *roster
    }

    /// The roster again, after a broken connection: the member is being asked.
    pub(super) fn roster(self, roster: &Roster) -> PhaseStep<Self> {
        let (asked, got) = (self.context.roster.digest(), roster.digest());
        if asked != got {
            return Err(MemberError::OtherRoster { asked, got });
        }
        Ok((self, Vec::new()))
    }

    /// The member accepts the roster.
    pub(super) fn accepted(
        self,
        settings: &MemberSettings,
        pin: &mut dyn RosterPin,
    ) -> PhaseStep<PinnedRun> {
        pin.accept(&self.context.roster)?;
        Ok(self.pinned(settings))
    }

    /// The member does not accept the roster.
    pub(super) fn declined(self, pin: &mut dyn RosterPin) -> MemberError {
        match pin.pin(&self.context.roster) {
            Err(error) => error.into(),
            // It was pinned by other means since.
            Ok(()) => MemberError::Pin(PinError::Unaccepted {
                got: self.context.roster.digest(),
                change: None,
            }),
        }
    }

    fn pinned(self, settings: &MemberSettings) -> (PinnedRun, Vec<MemberEffect>) {
        let Self { run, context } = self;
        let receipt = RunReceipt {
            aggregator: settings.aggregator,
            plan: run.signed.clone(),
            roster: context.roster.clone(),
            first: run.adapter.digest(),
        };
        let effects = vec![
            MemberEffect::KeepRun(Box::new(receipt)),
            MemberEffect::Pinned(Box::new(context.roster.clone())),
            accepted(&context.roster, None),
        ];
        (PinnedRun::new(run, Arc::new(context)), effects)
    }
}
