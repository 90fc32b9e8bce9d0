//! The pinned roster: a member takes part with those only whom it was first shown, unless it
//! agrees to a change.

use fedlora_common::digest::Digest;

use crate::plan::Roster;

/// Where a member pins the roster that it was first shown.
pub trait RosterPin {
    /// Pins `roster` where none is pinned.
    ///
    /// # Errors
    /// [`PinError::Changed`] where another one is and the member did not agree to the change.
    fn pin(&mut self, roster: &Roster) -> Result<(), PinError>;
}

/// A pin that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryRosterPin(Option<Digest>);

impl RosterPin for MemoryRosterPin {
    fn pin(&mut self, roster: &Roster) -> Result<(), PinError> {
        let got = roster.digest();
        let pinned = *self.0.get_or_insert(got);
        if pinned == got {
            return Ok(());
        }
        Err(PinError::Changed { pinned, got })
    }
}

/// Why a roster was not pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Another roster was pinned before, and the member did not agree to this one.
    #[error(
        "the roster has changed: pinned is {pinned}, shown is {got}. Ask the other members who \
         joined, left or changed keys before you accept it"
    )]
    Changed {
        /// The digest of the pinned roster.
        pinned: Digest,
        /// The digest of the roster that was shown.
        got: Digest,
    },
    /// The pin cannot be read or written.
    #[error("the pinned roster: {message}")]
    Storage {
        /// The file and the system's reason.
        message: String,
    },
}
