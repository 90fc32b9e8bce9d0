//! The member's half of a whole run, pure: messages and finished work come in, [`Effect`]s go
//! out. The client, the simulator and the tests drive this one machine.
//!
//! The phases of a run are one struct each, and each owns what it knows:
//!
//! | file | phase | handles |
//! |---|---|---|
//! | `phases.rs` | `AwaitPlan` | the signed plan |
//! | `phases.rs` | `AwaitWork` | base digest and first adapter |
//! | `phases.rs` | `AwaitRoster` | the roster |
//! | `pinned.rs` | `PinnedRun` | M0, `Abandoned`, M6 and the adapter's fetch |
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

use std::fmt;
use std::sync::Arc;

use rand::CryptoRng;

use crate::crypto::sign::{IdentityKey, IdentityPublic};
use crate::fixed::{EncodedUpdate, FixedError};
use crate::ids::{Attempt, MemberName, RoundNumber};
use crate::plan::Floors;
use crate::wire::messages::ToMember;

use super::participant::RoundLedger;
use phases::{AwaitPlan, AwaitRoster, AwaitWork};
use pinned::PinnedRun;

pub use effect::{Effect, LeaveReason, Prepared, RoundTask, RunOutcome, Upload};
pub use error::MemberError;
pub use member_round::{MemberRound, RoundAnswer};
pub use pin::{MemoryRosterPin, PinError, RosterPin};

/// What a member brings along to a run.
pub struct MemberSettings {
    /// This member's name on the roster.
    pub name: MemberName,
    /// The key that signs this member's messages.
    pub identity: Arc<IdentityKey>,
    /// The key that must have signed plan and results.
    pub aggregator: IdentityPublic,
    /// The plan must meet these, or the run ends for this member.
    pub floors: Floors,
}

/// The durable stores that the machine writes before it answers.
pub struct Stores<'a> {
    /// Which rounds were opened and revealed.
    pub ledger: &'a mut dyn RoundLedger,
    /// The roster that this member was first shown.
    pub pin: &'a mut dyn RosterPin,
}

/// One member in one run.
pub struct Member {
    settings: MemberSettings,
    phase: Phase,
}

/// The phases of a run.
enum Phase {
    Plan(AwaitPlan),
    Work(Box<AwaitWork>),
    Roster(Box<AwaitRoster>),
    Pinned(Box<PinnedRun>),
    /// The run has ended for this member: every further input is ignored.
    Over,
}

/// What a step leads to: the next phase and the effects, in order; or the end.
type Step = Result<(Phase, Vec<Effect>), MemberError>;

impl Member {
    /// A member that has not seen a plan yet.
    pub fn new(settings: MemberSettings) -> Self {
        Self {
            settings,
            phase: Phase::Plan(AwaitPlan),
        }
    }

    /// Takes a message of the aggregator's. A message that no phase waits for changes nothing.
    pub fn message(
        &mut self,
        message: ToMember,
        stores: &mut Stores<'_>,
        rng: &mut impl CryptoRng,
    ) -> Vec<Effect> {
        self.step(|settings, phase| match message {
            ToMember::Plan(signed) => match phase {
                Phase::Plan(phase) => phase.plan(signed, settings),
                Phase::Work(phase) => phase.plan(signed, settings),
                Phase::Roster(phase) => phase.plan(signed, settings),
                Phase::Pinned(phase) => phase.plan(signed, settings),
                Phase::Over => Ok((Phase::Over, Vec::new())),
            },
            ToMember::Roster(roster) => match phase {
                Phase::Roster(phase) => phase.roster(roster, settings, stores.pin),
                Phase::Pinned(phase) => phase.roster(&roster, stores.pin),
                other => Ok((other, Vec::new())),
            },
            ToMember::Finished {
                failure: Some(reason),
            } => Err(MemberError::Failed { reason }),
            ToMember::Finished { failure: None } => match phase {
                Phase::Pinned(phase) => phase.finished(),
                _ => Err(MemberError::NoResult),
            },
            ToMember::Refused { reason } => Err(MemberError::Refused { reason }),
            message => match phase {
                Phase::Pinned(phase) => phase.message(message, settings, stores.ledger, rng),
                other => Ok((other, Vec::new())),
            },
        })
    }

    /// Takes what [`Effect::Prepare`] asked for.
    pub fn prepared(&mut self, prepared: Prepared) -> Vec<Effect> {
        self.step(|_, phase| match phase {
            Phase::Work(phase) => Ok(phase.prepared(prepared)),
            other => Ok((other, Vec::new())),
        })
    }

    /// Notes that the training of [`Effect::Train`] is done.
    pub fn trained(&mut self, round: RoundNumber) -> Vec<Effect> {
        self.in_run(|run| Ok(run.trained(round)))
    }

    /// Takes what [`Effect::Encode`] asked for, with the round and attempt that it named. Update
    /// and masker are consumed. An update for another round or attempt than the current one is
    /// dropped.
    pub fn encoded(
        &mut self,
        round: RoundNumber,
        attempt: Attempt,
        encoded: Result<EncodedUpdate, FixedError>,
    ) -> Vec<Effect> {
        self.in_run(|run| Ok(run.encoded(round, attempt, encoded)))
    }

    /// Takes the values that [`Effect::Fetch`] asked for; `None` where the aggregator holds a
    /// newer adapter by now, whose result follows.
    pub fn fetched(&mut self, values: Option<Vec<f32>>) -> Vec<Effect> {
        self.in_run(|run| run.fetched(values))
    }

    fn in_run(
        &mut self,
        step: impl FnOnce(PinnedRun) -> Result<(PinnedRun, Vec<Effect>), MemberError>,
    ) -> Vec<Effect> {
        self.step(|_, phase| match phase {
            Phase::Pinned(run) => {
                let (run, effects) = step(*run)?;
                Ok((Phase::Pinned(Box::new(run)), effects))
            }
            other => Ok((other, Vec::new())),
        })
    }

    fn step(&mut self, step: impl FnOnce(&MemberSettings, Phase) -> Step) -> Vec<Effect> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        match step(&self.settings, phase) {
            Ok((next, effects)) => {
                self.phase = next;
                effects
            }
            Err(error) => vec![Effect::End(Err(error))],
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({})", self.settings.name)
    }
}
