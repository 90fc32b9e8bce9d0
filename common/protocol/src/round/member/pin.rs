//! The pinned roster: a member takes part only with a roster that it has accepted, the first
//! one too.

use fedlora_common::digest::Digest;

use crate::plan::{Roster, RosterChange};

/// Where a member pins the roster that it has accepted.
pub trait RosterPin {
    /// Checks that `roster` is the accepted one; pins it where the member named it beforehand.
    ///
    /// # Errors
    /// [`PinError::Unaccepted`] where the member has not accepted it, and [`PinError::Storage`].
    fn pin(&mut self, roster: &Roster) -> Result<(), PinError>;

    /// Pins `roster`, which the member was shown and has accepted.
    ///
    /// # Errors
    /// [`PinError::Storage`].
    fn accept(&mut self, roster: &Roster) -> Result<(), PinError>;
}

/// A pin that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryRosterPin {
    named: Option<Digest>,
    pinned: Option<Roster>,
}

impl MemoryRosterPin {
    /// A pin of a member that accepts the roster with this digest beforehand.
    pub fn accepting(named: Digest) -> Self {
        Self {
            named: Some(named),
            pinned: None,
        }
    }
}

impl RosterPin for MemoryRosterPin {
    fn pin(&mut self, roster: &Roster) -> Result<(), PinError> {
        if judge(self.named, self.pinned.as_ref(), roster)? == Verdict::Named {
            self.pinned = Some(roster.clone());
        }
        Ok(())
    }

    fn accept(&mut self, roster: &Roster) -> Result<(), PinError> {
        self.named = None;
        self.pinned = Some(roster.clone());
        Ok(())
    }
}

/// Why a roster may be taken part with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the pinned one.
    Pinned,
    /// It is the one that the member named beforehand, and is to be pinned.
    Named,
}

/// Compares a roster that is `shown` with the one that the member `named` beforehand, and with
/// the `pinned` one. Where one is named, exactly that is accepted.
///
/// # Errors
/// [`PinError::Unaccepted`].
pub fn judge(
    named: Option<Digest>,
    pinned: Option<&Roster>,
    shown: &Roster,
) -> Result<Verdict, PinError> {
    let got = shown.digest();
    let is_pinned = pinned.is_some_and(|pinned| pinned.digest() == got);
    match named {
        None if is_pinned => Ok(Verdict::Pinned),
        Some(named) if named == got => Ok(if is_pinned {
            Verdict::Pinned
        } else {
            Verdict::Named
        }),
        _ => Err(PinError::Unaccepted {
            got,
            change: pinned.map(|pinned| RosterChange::between(pinned, shown)),
        }),
    }
}

/// Why a roster was not pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The member has not accepted this roster.
    #[error("{}", unaccepted(got, change.as_ref()))]
    Unaccepted {
        /// The digest of the roster that was shown.
        got: Digest,
        /// How it differs from the pinned one; `None` where none is pinned.
        change: Option<RosterChange>,
    },
    /// The pin cannot be read or written.
    #[error("the pinned roster: {message}")]
    Storage {
        /// The file and the system's reason.
        message: String,
    },
}

fn unaccepted(got: &Digest, change: Option<&RosterChange>) -> String {
    match change {
        None => format!("this member has not accepted the roster {got}"),
        Some(change) => format!(
            "the roster has changed ({change}), and this member has not accepted the new one, {got}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::IdentityPublic;
    use crate::plan::RosterEntry;

    fn roster(key: u8) -> Roster {
        Roster::new(vec![RosterEntry {
            name: "a".parse().unwrap(),
            identity: IdentityPublic::from_bytes([key; 32]),
            certificate_key: Digest::from_bytes([9; 32]),
        }])
        .unwrap()
    }

    #[test]
    fn the_first_roster_needs_consent_too() {
        let mut pin = MemoryRosterPin::default();
        let refused = pin.pin(&roster(1)).unwrap_err();
        let expected = PinError::Unaccepted {
            got: roster(1).digest(),
            change: None,
        };
        assert_eq!(refused, expected);
        pin.accept(&roster(1)).unwrap();
        pin.pin(&roster(1)).unwrap();
        assert!(pin.pin(&roster(2)).is_err());
    }

    #[test]
    fn where_a_roster_is_named_exactly_that_is_accepted() {
        let named = |key| Some(roster(key).digest());
        assert_eq!(judge(named(1), None, &roster(1)), Ok(Verdict::Named));
        assert_eq!(
            judge(named(1), Some(&roster(1)), &roster(1)),
            Ok(Verdict::Pinned)
        );
        assert_eq!(
            judge(named(2), Some(&roster(1)), &roster(2)),
            Ok(Verdict::Named)
        );
        // Neither another than the named one, nor the pinned one where another is named.
        assert!(judge(named(2), None, &roster(1)).is_err());
        let refused = judge(named(2), Some(&roster(1)), &roster(1)).unwrap_err();
        assert!(matches!(
            refused,
            PinError::Unaccepted {
                change: Some(_),
                ..
            }
        ));
    }
}
