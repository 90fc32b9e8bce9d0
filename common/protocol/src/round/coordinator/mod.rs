//! The aggregator's half of a round. `decide` judges an input against the state and gives an
//! event or a reject; `apply` carries an event out and cannot fail. The shell stores the
//! event between the two, so that recovery is replay. A bad message costs its sender one
//! reject, never the round.
//!
//! | phase | collects | closes with |
//! |---|---|---|
//! | `commit` | commitments to a beacon, where there is one | the commitments that it comes from |
//! | `keys` | M1 | to each member its neighbours' keys |
//! | `shares` | M2 | to each holder what was dealt to it |
//! | `held` | whose shares each holder has | those whom enough hold: masks are among them |
//! | `updates` | M3 | the survivor list |
//! | `confirm` | signatures on it | the signatures to all survivors |
//! | `reveal` | M5 | the masks to remove |

mod cohort;
mod commit;
mod confirm;
mod event;
mod fault;
mod held;
mod keys;
mod reject;
mod replay;
mod reveal;
mod setup;
mod shares;
mod transition;
mod updates;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::MemberIndex;
use crate::wire::messages::{PhaseName, RoundMessage, ToMember};
use fedlora_common::clock::Timestamp;

use transition::{Transition, View};

pub use event::{Completed, CompletedGroup, CoordinatorEffect, Event, EventKind, Input};
pub use fault::Fault;
pub use reject::Reject;
pub use setup::RoundSetup;

#[cfg(test)]
mod tests;

/// The state of one attempt at a round.
#[derive(Debug)]
pub struct Coordinator {
    setup: Arc<RoundSetup>,
    /// Members that take no further part.
    left: BTreeSet<MemberIndex>,
    deadline: Timestamp,
    phase: CoordinatorPhase,
    /// Whether the members were sent what makes them reveal.
    revealing: bool,
}

#[derive(Debug)]
enum CoordinatorPhase {
    Commit(commit::CollectCommitments),
    Keys(keys::CollectKeys),
    Shares(shares::CollectShares),
    Held(held::CollectHeld),
    Updates(updates::CollectUpdates),
    Confirm(confirm::CollectConfirmations),
    Reveal(reveal::CollectReveals),
    Ended,
}

impl Coordinator {
    /// Opens a round: M0 to every member.
    pub fn open(setup: Arc<RoundSetup>, now: Timestamp) -> (Self, Vec<CoordinatorEffect>) {
        let effects = setup
            .roster
            .indices()
            .map(|member| CoordinatorEffect::Send(member, ToMember::Open(setup.open.clone())))
            .collect();
        let phase = if setup.policy.needs_beacon() {
            CoordinatorPhase::Commit(commit::CollectCommitments::default())
        } else {
            CoordinatorPhase::Keys(keys::CollectKeys::first())
        };
        let coordinator = Self {
            left: BTreeSet::new(),
            deadline: setup.deadline(PhaseName::Keys, now),
            phase,
            revealing: false,
            setup,
        };
        (coordinator, effects)
    }

    /// Decides whether an input is accepted; changes nothing.
    ///
    /// # Errors
    /// [`Reject`] where the phase does not wait for this input from this member. Only the
    /// sender is told.
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
                self.check_context(from, open == self.setup.digest.into())?;
                self.decide_message(from, message).map(event)
            }
            Input::Uploaded { from, open, claim } => {
                self.check_context(from, open == self.setup.digest)?;
                match &self.phase {
                    CoordinatorPhase::Updates(phase) => phase.decide(&self.setup, from, claim),
                    phase => Err(phase.unexpected("masked update")),
                }
                .map(event)
            }
        }
    }

    /// Applies an event; cannot fail.
    pub fn apply(mut self, event: Event) -> (Self, Vec<CoordinatorEffect>) {
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
        use CoordinatorPhase as P;
        let transition = match self.phase {
            P::Commit(phase) => erase(phase.apply(view, event.kind), P::Commit, P::Keys),
            P::Keys(phase) => erase(phase.apply(view, event.kind), P::Keys, P::Shares),
            P::Shares(phase) => erase(phase.apply(view, event.kind), P::Shares, P::Held),
            P::Held(phase) => erase(
                phase.apply(view, event.kind, &mut effects),
                P::Held,
                P::Updates,
            ),
            P::Updates(phase) => erase(
                phase.apply(view, event.kind, &mut effects),
                P::Updates,
                P::Confirm,
            ),
            P::Confirm(phase) => erase(phase.apply(view, event.kind), P::Confirm, P::Reveal),
            P::Reveal(phase) => erase(
                phase.apply(view, event.kind, &mut effects),
                P::Reveal,
                |()| P::Ended,
            ),
            P::Ended => Transition::Stay(P::Ended),
        };
        match transition {
            Transition::Stay(phase) => self.phase = phase,
            Transition::Hurry(phase, most) => {
                self.deadline = self.deadline.min(event.at.after(most));
                self.phase = phase;
            }
            Transition::Next(phase, more) => {
                if let Some(name) = phase.name() {
                    self.deadline = self.setup.deadline(name, event.at);
                }
                self.revealing |= matches!(phase, P::Reveal(_));
                self.phase = phase;
                effects.extend(more);
            }
            Transition::End(effect) => {
                self.phase = P::Ended;
                effects.push(effect);
            }
        }
        (self, effects)
    }

    /// The round's M0 and what belongs to it.
    pub fn setup(&self) -> &RoundSetup {
        &self.setup
    }

    /// The current phase; `None` after the round's end.
    pub fn phase(&self) -> Option<PhaseName> {
        self.phase.name()
    }

    /// When the phase closes at the latest.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whether the round has ended.
    pub fn ended(&self) -> bool {
        matches!(self.phase, CoordinatorPhase::Ended)
    }

    /// Whether shares may have been revealed: then no other attempt at the round may follow.
    pub fn may_have_revealed(&self) -> bool {
        self.revealing
    }

    /// Whether the phase waits for more than it needs.
    pub fn has_enough(&self) -> bool {
        match &self.phase {
            CoordinatorPhase::Confirm(phase) => phase.has_enough(&self.setup),
            _ => false,
        }
    }

    /// The members that the phase still waits for.
    pub fn awaited(&self) -> Vec<MemberIndex> {
        let awaited = match &self.phase {
            CoordinatorPhase::Commit(phase) => phase.awaited(&self.setup),
            CoordinatorPhase::Keys(phase) => phase.awaited(&self.setup),
            CoordinatorPhase::Shares(phase) => phase.awaited(),
            CoordinatorPhase::Held(phase) => phase.awaited(),
            CoordinatorPhase::Updates(phase) => phase.awaited(),
            CoordinatorPhase::Confirm(phase) => phase.awaited(),
            CoordinatorPhase::Reveal(phase) => phase.awaited(),
            CoordinatorPhase::Ended => Vec::new(),
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
            CoordinatorPhase::Commit(phase) => vec![phase.request(&self.setup)],
            CoordinatorPhase::Keys(phase) => vec![phase.request(&self.setup)],
            CoordinatorPhase::Shares(phase) => vec![phase.request(member)],
            CoordinatorPhase::Held(phase) => vec![phase.request(member)],
            CoordinatorPhase::Updates(phase) => vec![phase.request()],
            CoordinatorPhase::Confirm(phase) => vec![phase.request(member)],
            // It may have been away before it saw the list, and reveals nothing without.
            CoordinatorPhase::Reveal(phase) => {
                vec![phase.list(member), phase.request(&self.setup, member)]
            }
            CoordinatorPhase::Ended => Vec::new(),
        }
    }

    /// Whether a member can be in the round though it has nothing of it: all that is awaited from it
    /// is the answer to M0.
    pub fn can_begin(&self, member: MemberIndex) -> bool {
        matches!(self.outstanding(member)[..], [ToMember::Open(_)])
    }

    fn decide_message(
        &self,
        from: MemberIndex,
        message: RoundMessage,
    ) -> Result<EventKind, Reject> {
        match (&self.phase, message) {
            (_, RoundMessage::Abstain) => self.leave(from),
            (CoordinatorPhase::Commit(phase), RoundMessage::Commit(commitment)) => {
                phase.decide(&self.setup, from, commitment)
            }
            (CoordinatorPhase::Keys(phase), RoundMessage::Keys { keys, opening }) => {
                phase.decide(&self.setup, from, keys, opening)
            }
            (CoordinatorPhase::Shares(phase), RoundMessage::Shares(deal)) => {
                phase.decide(&self.setup, from, deal)
            }
            (CoordinatorPhase::Held(phase), RoundMessage::Held { dealers, signature }) => {
                phase.decide(&self.setup, from, dealers, signature)
            }
            (CoordinatorPhase::Confirm(phase), RoundMessage::Confirm(signature)) => {
                phase.decide(&self.setup, from, signature)
            }
            (CoordinatorPhase::Reveal(phase), RoundMessage::Reveal { shares, signature }) => {
                phase.decide(&self.setup, from, shares, signature)
            }
            (phase, message) => Err(phase.unexpected(match message {
                RoundMessage::Commit(_) => "commitment",
                RoundMessage::Keys { .. } => "keys",
                RoundMessage::Shares(_) => "shares",
                RoundMessage::Held { .. } => "statement of held shares",
                RoundMessage::Working => "sign of progress",
                RoundMessage::Confirm(_) => "confirmation",
                RoundMessage::Reveal { .. } => "revealed shares",
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

    fn check_context(&self, from: MemberIndex, answers_this: bool) -> Result<(), Reject> {
        if !answers_this {
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

impl CoordinatorPhase {
    fn name(&self) -> Option<PhaseName> {
        match self {
            Self::Commit(_) => Some(PhaseName::Commit),
            Self::Keys(_) => Some(PhaseName::Keys),
            Self::Shares(_) => Some(PhaseName::Shares),
            Self::Held(_) => Some(PhaseName::Held),
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

/// A transition between two phases, as the coordinator holds them.
fn erase<P, N>(
    transition: Transition<P, N>,
    stay: impl FnOnce(P) -> CoordinatorPhase,
    next: impl FnOnce(N) -> CoordinatorPhase,
) -> Transition<CoordinatorPhase, CoordinatorPhase> {
    match transition {
        Transition::Stay(phase) => Transition::Stay(stay(phase)),
        Transition::Hurry(phase, most) => Transition::Hurry(stay(phase), most),
        Transition::Next(phase, effects) => Transition::Next(next(phase), effects),
        Transition::End(effect) => Transition::End(effect),
    }
}
