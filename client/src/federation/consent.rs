//! Asking a member's user about a roster, beside the session.

use std::fmt;

use fedlora_protocol::round::member::RosterQuestion;

/// Asks the user. Libraries do not read a terminal: the program brings this.
pub trait RosterConsent: fmt::Debug + Send + Sync {
    /// Shows the roster, and gives whether the user accepts it. May block for minutes: it is
    /// called on a thread of its own, and the session goes on meanwhile.
    fn ask(&self, question: &RosterQuestion) -> bool;
}

/// Nobody is there to ask: every roster that was not accepted beforehand is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nobody;

impl RosterConsent for Nobody {
    fn ask(&self, _: &RosterQuestion) -> bool {
        false
    }
}
