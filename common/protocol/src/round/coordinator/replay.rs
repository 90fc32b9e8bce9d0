//! From an event back to the input that it was made of. Who keeps a round's events can so have
//! `decide` judge each of them again: every signature, every digest, every time limit.

use crate::wire::messages::{Reveal, RoundMessage};

use super::{Coordinator, Event, EventKind, Input};

impl Coordinator {
    /// The input of which `event` was made. An event is genuine where [`Coordinator::decide`] makes
    /// the same of it again, at the event's own time.
    pub fn input_of(&self, event: &Event) -> Input {
        let message = |from, message| Input::Message {
            from,
            open: self.setup.digest.into(),
            message,
        };
        match event.kind.clone() {
            EventKind::Committed(from, commitment) => {
                message(from, RoundMessage::Commit(commitment))
            }
            EventKind::KeysTaken(keys, opening) => {
                message(keys.claimed().member, RoundMessage::Keys { keys, opening })
            }
            EventKind::SharesTaken(deal) => {
                message(deal.claimed().member, RoundMessage::Shares(deal))
            }
            EventKind::HeldTaken(from, dealers, signature) => {
                message(from, RoundMessage::Held { dealers, signature })
            }
            EventKind::UpdateTaken(claim) => Input::Uploaded {
                from: claim.claimed().member,
                open: self.setup.digest,
                claim,
            },
            EventKind::Confirmed(from, signature) => {
                message(from, RoundMessage::Confirm(signature))
            }
            EventKind::Revealed(reveal) => {
                let Reveal { member, shares, .. } = reveal.claimed().clone();
                let signature = reveal.signature();
                message(member, RoundMessage::Reveal { shares, signature })
            }
            EventKind::Left(member) => Input::Absent { member },
            EventKind::TimeUp => Input::Tick,
        }
    }
}

impl EventKind {
    /// How many signatures [`Coordinator::decide`] has checked where this event is genuine.
    pub fn signatures(&self) -> usize {
        match self {
            Self::KeysTaken(_, opening) => 1 + usize::from(opening.is_some()),
            Self::SharesTaken(_)
            | Self::HeldTaken(..)
            | Self::UpdateTaken(_)
            | Self::Confirmed(..)
            | Self::Revealed(_) => 1,
            Self::Committed(..) | Self::Left(_) | Self::TimeUp => 0,
        }
    }
}
