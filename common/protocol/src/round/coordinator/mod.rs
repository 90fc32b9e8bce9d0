//! The aggregator's half of a round. `decide` judges an input against the state and gives an
//! event or a reject; `apply` carries an event out and cannot fail. The shell stores the
//! event between the two, so that recovery is replay. A bad message costs its sender one
//! reject, never the round.
//!
//! | phase | collects | closes with |
//! |---|---|---|
//! | `keys` | M1 | all keys to all |
//! | `shares` | M2 | to each holder what was sealed for it |
//! | `updates` | M3 | the survivor list |
//! | `confirm` | signatures on it | the signatures to all survivors |
//! | `reveal` | M5 | the masks to take off |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::MemberIndex;
use crate::plan::{Roster, Timeouts};
use crate::secagg::{CohortPolicy, Unmasking};
use crate::wire::Unverified;
use crate::wire::messages::{
    Keys, Open, PhaseName, RevealedShare, RoundFailure, RoundMessage, SealedShares, Survivors,
    ToMember, UpdateClaim,
};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

mod confirm;
mod keys;
mod reject;
mod reveal;
mod shares;
mod updates;

pub use reject::Reject;

#[cfg(test)]
mod tests;

/// What stays the same over the phases of one attempt at a round.
#[derive(Debug)]
pub struct RoundSetup {
    open: Open,
    digest: Digest,
    roster: Arc<Roster>,
    policy: CohortPolicy,
    timeouts: Timeouts,
}

impl RoundSetup {
    /// Puts a round together. `open` holds the threshold and minimum of `policy`.
    pub fn new(open: Open, roster: Arc<Roster>, policy: CohortPolicy, timeouts: Timeouts) -> Self {
        Self {
            digest: open.digest(),
            open,
            roster,
            policy,
            timeouts,
        }
    }

    /// M0.
    pub fn open(&self) -> &Open {
        &self.open
    }

    /// The digest of M0, which every answer names.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    fn deadline(&self, phase: PhaseName, from: Timestamp) -> Timestamp {
        let seconds = match phase {
            PhaseName::Keys => self.timeouts.keys,
            PhaseName::Shares => self.timeouts.shares,
            PhaseName::Updates => self.timeouts.update,
            PhaseName::Confirm => self.timeouts.confirm,
            PhaseName::Reveal => self.timeouts.reveal,
        };
        from.after(Duration::from_secs(seconds))
    }
}

/// What reaches the coordinator.
#[derive(Debug)]
pub enum Input {
    /// A member's message.
    Message {
        /// From whom: known from its certificate.
        from: MemberIndex,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// The message.
        message: RoundMessage,
    },
    /// A member's masked update is stored durably.
    Uploaded {
        /// From whom.
        from: MemberIndex,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// Its signed digest, equal to that of the stored bytes.
        claim: Unverified<UpdateClaim>,
    },
    /// A member's connection broke and it did not come back in time.
    Absent {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// Time has passed.
    Tick,
}

/// What happened: durable before it is applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// M1 was accepted.
    KeysTaken(Unverified<Keys>),
    /// M2 was accepted.
    SharesTaken(MemberIndex, BTreeMap<MemberIndex, SealedShares>),
    /// M3 was accepted.
    UpdateTaken(UpdateClaim),
    /// A signature on the survivor list was accepted.
    Confirmed(Unverified<crate::wire::messages::Confirmation>),
    /// M5 was accepted.
    Revealed(MemberIndex, BTreeMap<MemberIndex, RevealedShare>),
    /// A member takes no further part in this round.
    Left(MemberIndex),
    /// The phase's time is up.
    TimeUp,
}

/// What the shell must do.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few at a time, and each is consumed at once"
)]
pub enum Effect {
    /// Send a message to a member.
    Send(MemberIndex, ToMember),
    /// Add a stored update to the running sum. Its member is in the sum from here on.
    Accumulate(MemberIndex),
    /// Take the masks off the sum: the round is done.
    Unmask(Box<Completed>),
    /// The round came to nothing.
    Fail(RoundFailure),
}

/// A round whose masks are recovered.
#[derive(Debug)]
pub struct Completed {
    /// The masks to take off the running sum.
    pub unmasking: Unmasking,
    /// Who is in the sum.
    pub survivors: Vec<MemberIndex>,
    /// Who is not.
    pub dropped: Vec<MemberIndex>,
    /// The digest of keys and survivor list.
    pub transcript: Digest,
}

/// One attempt at a round.
#[derive(Debug)]
pub struct Coordinator {
    setup: Arc<RoundSetup>,
    /// Members that take no further part.
    left: BTreeSet<MemberIndex>,
    deadline: Timestamp,
    phase: Phase,
    /// Whether the members were sent what makes them reveal.
    revealing: bool,
}

#[derive(Debug)]
enum Phase {
    Keys(keys::CollectKeys),
    Shares(shares::CollectShares),
    Updates(updates::CollectUpdates),
    Confirm(confirm::CollectConfirmations),
    Reveal(reveal::CollectReveals),
    Ended,
}

/// What applying an event to a phase leads to.
enum Step {
    /// The phase goes on.
    Stay(Phase),
    /// The phase is over; another begins.
    Next(Phase, Vec<Effect>),
    /// The round is over.
    End(Effect),
}

impl Coordinator {
    /// Opens a round: M0 to every member.
    pub fn open(setup: Arc<RoundSetup>, now: Timestamp) -> (Self, Vec<Effect>) {
        let effects = setup
            .roster
            .indices()
            .map(|member| Effect::Send(member, ToMember::Open(setup.open.clone())))
            .collect();
        let coordinator = Self {
            left: BTreeSet::new(),
            deadline: setup.deadline(PhaseName::Keys, now),
            phase: Phase::Keys(keys::CollectKeys::default()),
            revealing: false,
            setup,
        };
        (coordinator, effects)
    }

    /// Judges an input.
    ///
    /// # Errors
    /// [`Reject`] where it is not what the phase waits for, from whom it waits; the state is as
    /// it was, and only the sender is told.
    pub fn decide(&self, now: Timestamp, input: Input) -> Result<Event, Reject> {
        let event = |kind| Event { at: now, kind };
        match input {
            Input::Tick if now >= self.deadline && !self.ended() => Ok(event(EventKind::TimeUp)),
            Input::Tick => Err(Reject::NotYet),
            Input::Absent { member } => self.leave(member).map(event),
            Input::Message {
                from,
                open,
                message,
            } => {
                self.check_context(from, &open)?;
                self.decide_message(from, message).map(event)
            }
            Input::Uploaded { from, open, claim } => {
                self.check_context(from, &open)?;
                match &self.phase {
                    Phase::Updates(phase) => phase.decide(&self.setup, from, claim),
                    phase => Err(phase.unexpected("masked update")),
                }
                .map(event)
            }
        }
    }

    /// Carries an event out.
    pub fn apply(mut self, event: Event) -> (Self, Vec<Effect>) {
        if let EventKind::Left(member) = &event.kind {
            self.left.insert(*member);
        }
        let time_up = event.kind == EventKind::TimeUp;
        let view = View {
            setup: &self.setup,
            left: &self.left,
            time_up,
        };
        let mut effects = Vec::new();
        let step = match self.phase {
            Phase::Keys(phase) => phase.apply(view, event.kind),
            Phase::Shares(phase) => phase.apply(view, event.kind),
            Phase::Updates(phase) => phase.apply(view, event.kind, &mut effects),
            Phase::Confirm(phase) => phase.apply(view, event.kind),
            Phase::Reveal(phase) => phase.apply(view, event.kind),
            Phase::Ended => Step::Stay(Phase::Ended),
        };
        match step {
            Step::Stay(phase) => self.phase = phase,
            Step::Next(phase, more) => {
                if let Some(name) = phase.name() {
                    self.deadline = self.setup.deadline(name, event.at);
                }
                self.revealing |= matches!(phase, Phase::Reveal(_));
                self.phase = phase;
                effects.extend(more);
            }
            Step::End(effect) => {
                self.phase = Phase::Ended;
                effects.push(effect);
            }
        }
        (self, effects)
    }

    /// The round's M0 and what belongs to it.
    pub fn setup(&self) -> &RoundSetup {
        &self.setup
    }

    /// The phase; none where the round has ended.
    pub fn phase(&self) -> Option<PhaseName> {
        self.phase.name()
    }

    /// When the phase closes at the latest.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whether the round has ended.
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Whether shares may have been revealed: then the round must not be tried again.
    pub fn may_have_revealed(&self) -> bool {
        self.revealing
    }

    /// The members that the phase still waits for.
    pub fn awaited(&self) -> Vec<MemberIndex> {
        let awaited = match &self.phase {
            Phase::Keys(phase) => phase.awaited(&self.setup),
            Phase::Shares(phase) => phase.awaited(),
            Phase::Updates(phase) => phase.awaited(),
            Phase::Confirm(phase) => phase.awaited(),
            Phase::Reveal(phase) => phase.awaited(),
            Phase::Ended => Vec::new(),
        };
        awaited
            .into_iter()
            .filter(|member| !self.left.contains(member))
            .collect()
    }

    /// What a member that comes back must be sent again: the phase's messages, where an
    /// answer to them is awaited.
    pub fn outstanding(&self, member: MemberIndex) -> Vec<ToMember> {
        if !self.awaited().contains(&member) {
            return Vec::new();
        }
        match &self.phase {
            Phase::Keys(_) => vec![ToMember::Open(self.setup.open.clone())],
            Phase::Shares(phase) => vec![phase.request()],
            Phase::Updates(phase) => vec![phase.request(member)],
            Phase::Confirm(phase) => vec![phase.request()],
            // It may have been away before it saw the list, and reveals nothing without.
            Phase::Reveal(phase) => vec![phase.list(), phase.request()],
            Phase::Ended => Vec::new(),
        }
    }

    fn decide_message(
        &self,
        from: MemberIndex,
        message: RoundMessage,
    ) -> Result<EventKind, Reject> {
        match (&self.phase, message) {
            (_, RoundMessage::Abstain) => self.leave(from),
            (Phase::Keys(phase), RoundMessage::Keys(keys)) => phase.decide(&self.setup, from, keys),
            (Phase::Shares(phase), RoundMessage::Shares(shares)) => phase.decide(from, shares),
            (Phase::Confirm(phase), RoundMessage::Confirm(signature)) => {
                phase.decide(&self.setup, from, signature)
            }
            (Phase::Reveal(phase), RoundMessage::Reveal(shares)) => phase.decide(from, shares),
            (phase, message) => Err(phase.unexpected(match message {
                RoundMessage::Keys(_) => "keys",
                RoundMessage::Shares(_) => "shares",
                RoundMessage::Confirm(_) => "confirmation",
                RoundMessage::Reveal(_) => "revealed shares",
                RoundMessage::Abstain => "abstention",
            })),
        }
    }

    fn leave(&self, member: MemberIndex) -> Result<EventKind, Reject> {
        if self.awaited().contains(&member) {
            Ok(EventKind::Left(member))
        } else {
            Err(Reject::NotAwaited { member })
        }
    }

    fn check_context(&self, from: MemberIndex, open: &Digest) -> Result<(), Reject> {
        if *open != self.setup.digest {
            return Err(Reject::OtherRound {
                round: self.setup.open.round,
                attempt: self.setup.open.attempt,
            });
        }
        if self.left.contains(&from) {
            return Err(Reject::NotAwaited { member: from });
        }
        Ok(())
    }
}

impl Phase {
    fn name(&self) -> Option<PhaseName> {
        match self {
            Self::Keys(_) => Some(PhaseName::Keys),
            Self::Shares(_) => Some(PhaseName::Shares),
            Self::Updates(_) => Some(PhaseName::Updates),
            Self::Confirm(_) => Some(PhaseName::Confirm),
            Self::Reveal(_) => Some(PhaseName::Reveal),
            Self::Ended => None,
        }
    }

    fn unexpected(&self, message: &'static str) -> Reject {
        Reject::Unexpected {
            message,
            phase: self.name(),
        }
    }
}

/// What a phase may look at beside itself.
#[derive(Clone, Copy)]
struct View<'a> {
    setup: &'a RoundSetup,
    left: &'a BTreeSet<MemberIndex>,
    time_up: bool,
}

impl View<'_> {
    /// Whether the phase is over: its time is up, or nobody is left to wait for.
    fn closes(&self, awaited: &[MemberIndex]) -> bool {
        self.time_up || awaited.iter().all(|member| self.left.contains(member))
    }

    /// The failure of a phase that closed with too few, if they are.
    fn too_few(&self, phase: PhaseName, got: usize) -> Option<Step> {
        let needed = self.setup.policy.quorum();
        (got < needed).then(|| {
            Step::End(Effect::Fail(RoundFailure::Quorum {
                phase,
                got: got as u16,
                needed: needed as u16,
            }))
        })
    }
}

fn missing<'a>(
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
fn dropped_from(setup: &RoundSetup, survivors: &Survivors) -> Vec<MemberIndex> {
    setup
        .roster
        .indices()
        .filter(|member| !survivors.0.contains_key(member))
        .collect()
}
