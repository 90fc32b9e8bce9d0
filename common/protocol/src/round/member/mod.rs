//! The member's half of a whole run, pure: messages and finished work come in,
//! [`MemberEffect`]s go out. The client, the simulator and the tests drive this one machine.
//!
//! The phases of a run are one struct each, and each owns what it knows:
//!
//! | file | phase | handles |
//! |---|---|---|
//! | `phases.rs` | `AwaitPlan` | the signed plan |
//! | `phases.rs` | `AwaitWork` | base digest and first adapter |
//! | `phases.rs` | `AwaitRoster` | the roster |
//! | `phases.rs` | `AwaitConsent` | the member's answer, where it has not accepted the roster |
//! | `planned.rs` | `PlannedRun` | the plan again: what later phases keep of it |
//! | `pinned.rs` | `PinnedRun` | M0, `Abandoned`, M6, the adapter's fetch, and the run's end |
//! | `run_result.rs` | `RunResult` | which adapter is the run's result |
//! | `member_round.rs` | [`MemberRound`] | M1 to M5 of one round, and their repetition |
//!
//! A connection may break at any point. The aggregator then repeats what it waits for, and the
//! machine repeats the answer: the same keys, the same shares, never others.

mod effect;
mod error;
mod member_round;
mod phases;
mod pin;
mod pinned;
mod planned;
mod run_result;
mod settings;

use std::fmt;

use rand::CryptoRng;

use fedlora_common::digest::Digest;

use crate::fixed::{EncodedUpdate, FixedError};
use crate::ids::{Attempt, RoundNumber};
use crate::wire::messages::ToMember;

use phases::{AwaitConsent, AwaitPlan, AwaitRoster, AwaitWork, ShownRoster};
use pinned::PinnedRun;

pub use effect::{
    DoneRound, LeaveReason, MemberEffect, Prepared, RosterQuestion, RoundShare, RoundTask,
    RunOutcome, Upload,
};
pub use error::MemberError;
pub use member_round::{MemberRound, RoundAnswer};
pub use pin::{AcceptedRosters, MemoryRosterPin, PinError, RosterPin, Verdict, judge};
pub use settings::{MemberSettings, Stores};

/// The machine of one member in one run.
pub struct Member {
    settings: MemberSettings,
    phase: RunPhase,
}

/// The phases of a run.
enum RunPhase {
    Plan(AwaitPlan),
    Work(Box<AwaitWork>),
    Roster(Box<AwaitRoster>),
    Consent(Box<AwaitConsent>),
    Pinned(Box<PinnedRun>),
    /// The run has ended for this member: every further input is ignored.
    Over,
}

/// What an input leads to: the next phase and the effects, in order; or the run's early end.
type RunStep = Result<(RunPhase, Vec<MemberEffect>), MemberError>;

impl Member {
    /// A member that has not seen a plan yet.
    pub fn new(settings: MemberSettings) -> Self {
        Self {
            settings,
            phase: RunPhase::Plan(AwaitPlan),
        }
    }

    /// Takes a message of the aggregator's. A message that no phase waits for changes nothing.
    pub fn message(
        &mut self,
        message: ToMember,
        stores: &mut Stores<'_>,
        rng: &mut impl CryptoRng,
    ) -> Vec<MemberEffect> {
        self.step(|settings, phase| match message {
            ToMember::Plan(signed) => match phase {
                RunPhase::Plan(phase) => next(phase.plan(signed, settings)),
                RunPhase::Work(phase) => next(phase.plan(signed, settings)),
                RunPhase::Roster(phase) => next(phase.plan(signed, settings)),
                RunPhase::Consent(phase) => next(phase.plan(signed, settings)),
                RunPhase::Pinned(phase) => next(phase.plan(signed, settings)),
                RunPhase::Over => Ok((RunPhase::Over, Vec::new())),
            },
            ToMember::Roster(roster) => match phase {
                RunPhase::Roster(phase) => next(phase.roster(roster, settings, stores.pin)),
                RunPhase::Consent(phase) => next(phase.roster(&roster)),
                RunPhase::Pinned(phase) => next(phase.roster(&roster, stores.pin)),
                other => Ok((other, Vec::new())),
            },
            ToMember::Finished {
                failure: Some(reason),
            } => Err(MemberError::Failed { reason }),
            ToMember::Finished { failure: None } => match phase {
                RunPhase::Pinned(phase) => next(phase.finished()),
                _ => Err(MemberError::NoResult),
            },
            ToMember::Refused { reason } => Err(MemberError::Refused { reason }),
            message => match phase {
                RunPhase::Pinned(phase) => {
                    next(phase.message(message, settings, stores.ledger, rng))
                }
                other => Ok((other, Vec::new())),
            },
        })
    }

    /// Takes what [`MemberEffect::Prepare`] asked for.
    pub fn prepared(&mut self, prepared: Prepared) -> Vec<MemberEffect> {
        self.step(|_, phase| match phase {
            RunPhase::Work(phase) => next(phase.prepared(prepared)),
            other => Ok((other, Vec::new())),
        })
    }

    /// Takes the answer to [`MemberEffect::AskConsent`]: the member accepts the roster with this
    /// digest. An answer about another roster changes nothing.
    pub fn accept_roster(&mut self, roster: &Digest, pin: &mut dyn RosterPin) -> Vec<MemberEffect> {
        self.step(|settings, phase| match phase {
            RunPhase::Consent(phase) if phase.asks_about(roster) => {
                next(phase.accepted(settings, pin))
            }
            other => Ok((other, Vec::new())),
        })
    }

    /// Takes the answer to [`MemberEffect::AskConsent`]: the member does not accept the roster
    /// with this digest, and the run ends for it. An answer about another roster changes nothing.
    pub fn decline_roster(
        &mut self,
        roster: &Digest,
        pin: &mut dyn RosterPin,
    ) -> Vec<MemberEffect> {
        self.step(|_, phase| match phase {
            RunPhase::Consent(phase) if phase.asks_about(roster) => Err(phase.declined(pin)),
            other => Ok((other, Vec::new())),
        })
    }

    /// Notes that the training of [`MemberEffect::Train`] is done.
    pub fn trained(&mut self, round: RoundNumber) -> Vec<MemberEffect> {
        self.in_run(|run| Ok(run.trained(round)))
    }

    /// Takes what [`MemberEffect::Encode`] asked for, with the round and attempt that it named.
    /// Update and masker are consumed. An update for another round or attempt than the current
    /// one is dropped.
    pub fn encoded(
        &mut self,
        round: RoundNumber,
        attempt: Attempt,
        encoded: Result<EncodedUpdate, FixedError>,
    ) -> Vec<MemberEffect> {
        self.in_run(|run| Ok(run.encoded(round, attempt, encoded)))
    }

    /// Takes the values that [`MemberEffect::Fetch`] asked for; `None` where the aggregator holds a
    /// newer adapter by now, whose result follows.
    pub fn fetched(&mut self, values: Option<Vec<f32>>) -> Vec<MemberEffect> {
        self.in_run(|run| run.fetched(values))
    }

    fn in_run(
        &mut self,
        step: impl FnOnce(PinnedRun) -> Result<(PinnedRun, Vec<MemberEffect>), MemberError>,
    ) -> Vec<MemberEffect> {
        self.step(|_, phase| match phase {
            RunPhase::Pinned(run) => next(step(*run)),
            other => Ok((other, Vec::new())),
        })
    }

    /// Takes one step, unless the run has ended for this member.
    fn step(
        &mut self,
        step: impl FnOnce(&MemberSettings, RunPhase) -> RunStep,
    ) -> Vec<MemberEffect> {
        let phase = match std::mem::replace(&mut self.phase, RunPhase::Over) {
            RunPhase::Over => return Vec::new(),
            phase => phase,
        };
        match step(&self.settings, phase) {
            Ok((next, effects)) => {
                let ended = effects
                    .iter()
                    .any(|effect| matches!(effect, MemberEffect::End(_)));
                if !ended {
                    self.phase = next;
                }
                effects
            }
            Err(error) => vec![MemberEffect::End(Err(error))],
        }
    }
}

/// What a phase's step leads to, as the machine holds it.
fn next<P: Into<RunPhase>>(step: Result<(P, Vec<MemberEffect>), MemberError>) -> RunStep {
    step.map(|(phase, effects)| (phase.into(), effects))
}

impl From<AwaitWork> for RunPhase {
    fn from(phase: AwaitWork) -> Self {
        Self::Work(Box::new(phase))
    }
}

impl From<AwaitRoster> for RunPhase {
    fn from(phase: AwaitRoster) -> Self {
        Self::Roster(Box::new(phase))
    }
}

impl From<AwaitConsent> for RunPhase {
    fn from(phase: AwaitConsent) -> Self {
        Self::Consent(Box::new(phase))
    }
}

impl From<ShownRoster> for RunPhase {
    fn from(shown: ShownRoster) -> Self {
        match shown {
            ShownRoster::Pinned(run) => Self::Pinned(run),
            ShownRoster::Consent(phase) => Self::Consent(phase),
        }
    }
}

impl From<PinnedRun> for RunPhase {
    fn from(phase: PinnedRun) -> Self {
        Self::Pinned(Box::new(phase))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({})", self.settings.name)
    }
}

#[cfg(test)]
mod tests;
