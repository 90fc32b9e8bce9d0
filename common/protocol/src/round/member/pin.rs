//! The pinned roster: a member takes part only with a roster that it has accepted, the first
//! one too, or with most of its members.

use fedlora_common::digest::Digest;

use crate::plan::{Roster, RosterChange, RosterEntry};

/// The part of the roster accepted last whose members must take part where others of it stay away:
/// numerator and denominator.
const PRESENT: (usize, usize) = (2, 3);

/// The rosters that a member has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedRosters {
    last: Roster,
    known: Vec<RosterEntry>,
}

impl AcceptedRosters {
    /// A first one.
    pub fn first(roster: Roster) -> Self {
        Self::restored(roster, Vec::new())
    }

    /// What was kept: the one accepted `last`, and members of earlier ones.
    pub fn restored(last: Roster, known: Vec<RosterEntry>) -> Self {
        let mut accepted = Self { last, known };
        accepted.learn();
        accepted
    }

    /// Accepts another one. Members of the former ones stay known, with the keys that they had last.
    pub fn accept(&mut self, roster: Roster) {
        self.last = roster;
        self.learn();
    }

    /// The one accepted last.
    pub fn last(&self) -> &Roster {
        &self.last
    }

    /// All members of all of them, by their last keys.
    pub fn known(&self) -> &[RosterEntry] {
        &self.known
    }

    /// Whether all members on `shown` are known, with these keys, and no fewer than two thirds as many
    /// as on the roster accepted last: who stays away, or comes back, is no change to ask about.
    pub fn covers(&self, shown: &Roster) -> bool {
        let (part, whole) = PRESENT;
        let enough = shown.len() * whole >= self.last.len() * part;
        let known = |entry: &RosterEntry| self.known.contains(entry);
        enough && shown.entries().iter().all(known)
    }

    fn learn(&mut self) {
        let last = self.last.entries();
        self.known
            .retain(|old| !last.iter().any(|new| new.name == old.name));
        self.known.extend(last.iter().cloned());
    }
}

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
    pinned: Option<AcceptedRosters>,
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
        match judge(self.named, self.pinned.as_ref(), roster)? {
            Verdict::Pinned => Ok(()),
            Verdict::Named => self.accept(roster),
        }
    }

    fn accept(&mut self, roster: &Roster) -> Result<(), PinError> {
        self.named = None;
        match &mut self.pinned {
            Some(pinned) => pinned.accept(roster.clone()),
            None => self.pinned = Some(AcceptedRosters::first(roster.clone())),
        }
        Ok(())
    }
}

/// Why a roster may be taken part with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the pinned one, or has most of its members and none that is not known.
    Pinned,
    /// It is the one that the member named beforehand, and is to be pinned.
    Named,
}

/// Compares a roster that is `shown` with the one that the member `named` beforehand, and with
/// the `pinned` ones. Where one is named, exactly that is accepted.
///
/// # Errors
/// [`PinError::Unaccepted`].
pub fn judge(
    named: Option<Digest>,
    pinned: Option<&AcceptedRosters>,
    shown: &Roster,
) -> Result<Verdict, PinError> {
    let got = shown.digest();
    let is_pinned = pinned.is_some_and(|pinned| pinned.last().digest() == got);
    match named {
        None if pinned.is_some_and(|pinned| pinned.covers(shown)) => Ok(Verdict::Pinned),
        Some(named) if named == got => Ok(if is_pinned {
            Verdict::Pinned
        } else {
            Verdict::Named
        }),
        _ => Err(PinError::Unaccepted {
            got,
            change: pinned.map(|pinned| RosterChange::between(pinned.last(), shown)),
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

    fn accepted(key: u8) -> AcceptedRosters {
        AcceptedRosters::first(roster(key))
    }

    /// Members by their names, each with a key.
    fn members(members: &[(&str, u8)]) -> Roster {
        let entry = |&(name, key): &(&str, u8)| RosterEntry {
            name: name.parse().unwrap(),
            identity: IdentityPublic::from_bytes([key; 32]),
            certificate_key: Digest::from_bytes([100 + key; 32]),
        };
        Roster::new(members.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn members_that_stay_away_and_come_back_are_no_change() {
        let four = [("a", 1), ("b", 2), ("c", 3), ("d", 4)];
        let mut pin = MemoryRosterPin::default();
        pin.accept(&members(&four)).unwrap();
        pin.pin(&members(&four[..3])).unwrap();
        pin.pin(&members(&four)).unwrap();
        // Too few of them, one with other keys, one that nobody knows.
        assert!(pin.pin(&members(&four[..2])).is_err());
        assert!(pin.pin(&members(&[four[0], four[1], ("c", 9)])).is_err());
        assert!(pin.pin(&members(&[four[0], four[1], ("e", 5)])).is_err());

        // What is accepted is no less known for who stayed away from it, nor asked about again.
        let (with_e, five) = (
            [four[0], four[1], ("e", 5)],
            [&four[..], &[("e", 5)]].concat(),
        );
        pin.accept(&members(&with_e)).unwrap();
        pin.pin(&members(&with_e)).unwrap();
        pin.pin(&members(&five)).unwrap();
        // The keys of a member are the ones that were accepted last.
        pin.accept(&members(&[("a", 7), ("b", 2), ("e", 5)]))
            .unwrap();
        assert!(pin.pin(&members(&with_e)).is_err());
        pin.pin(&members(&[("a", 7), ("b", 2), ("d", 4)])).unwrap();
    }

    #[test]
    fn where_a_roster_is_named_exactly_that_is_accepted() {
        let named = |key| Some(roster(key).digest());
        assert_eq!(judge(named(1), None, &roster(1)), Ok(Verdict::Named));
        assert_eq!(
            judge(named(1), Some(&accepted(1)), &roster(1)),
            Ok(Verdict::Pinned)
        );
        assert_eq!(
            judge(named(2), Some(&accepted(1)), &roster(2)),
            Ok(Verdict::Named)
        );
        // Neither another than the named one, nor the pinned one where another is named.
        assert!(judge(named(2), None, &roster(1)).is_err());
        let refused = judge(named(2), Some(&accepted(1)), &roster(1)).unwrap_err();
        assert!(matches!(
            refused,
            PinError::Unaccepted {
                change: Some(_),
                ..
            }
        ));
    }
}
