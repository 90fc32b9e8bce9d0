//! The roster that a member has accepted, in its directory and readable for people.
//!
//! `roster.json` holds the roster accepted last, `roster.known.json` all members of this and earlier ones,
//! `roster.pending.json` one that was shown and waits for the member's consent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::plan::{Roster, RosterEntry};
use fedlora_protocol::round::member::{AcceptedRosters, PinError, RosterPin, Verdict, judge};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The pin in a member's directory.
#[derive(Debug)]
pub struct FileRosterPin {
    accepted: PathBuf,
    known: PathBuf,
    pending: PathBuf,
    named: Option<Digest>,
}

/// The rosters in a member's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRosters {
    /// The roster that the member has accepted last.
    pub accepted: Option<Roster>,
    /// A roster that was shown and that the member has not accepted.
    pub pending: Option<Roster>,
}

impl FileRosterPin {
    /// The pin in the folder `root`. `named` is the digest of the roster that the member accepts
    /// beforehand; every other is refused then, the pinned one too.
    pub fn new(root: &Path, named: Option<Digest>) -> Self {
        Self {
            accepted: root.join("roster.json"),
            known: root.join("roster.known.json"),
            pending: root.join("roster.pending.json"),
            named,
        }
    }

    /// What the folder holds.
    ///
    /// # Errors
    /// [`PinError::Storage`] for a file that cannot be read or is malformed.
    pub fn known(&self) -> Result<KnownRosters, PinError> {
        Ok(KnownRosters {
            accepted: read(&self.accepted)?,
            pending: read(&self.pending)?,
        })
    }

    fn rosters(&self) -> Result<Option<AcceptedRosters>, PinError> {
        let Some(last) = read(&self.accepted)? else {
            return Ok(None);
        };
        let known: Option<Vec<RosterEntry>> = read(&self.known)?;
        let known = known.unwrap_or_default();
        Ok(Some(AcceptedRosters::restored(last, known)))
    }
}

impl RosterPin for FileRosterPin {
    fn pin(&mut self, roster: &Roster) -> Result<(), PinError> {
        match judge(self.named, self.rosters()?.as_ref(), roster) {
            Ok(Verdict::Pinned) => remove(&self.pending),
            Ok(Verdict::Named) => self.accept(roster),
            Err(refused) => {
                // Kept for `fedlora roster`: the member compares it before it accepts it.
                write(&self.pending, roster)?;
                Err(refused)
            }
        }
    }

    fn accept(&mut self, roster: &Roster) -> Result<(), PinError> {
        // In this order a crash between them loses nothing that was known.
        if let Some(mut rosters) = self.rosters()? {
            rosters.accept(roster.clone());
            write(&self.known, rosters.known())?;
        }
        write(&self.accepted, roster)?;
        self.named = None;
        remove(&self.pending)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PinError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let malformed = io::Error::new(io::ErrorKind::InvalidData, error);
            storage(path, &malformed)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(storage(path, &error)),
    }
}

fn write<T: Serialize + ?Sized>(path: &Path, document: &T) -> Result<(), PinError> {
    let text = serde_json::to_vec_pretty(document).expect("a roster has text keys");
    write_atomic(path, &text, Access::Everyone).map_err(|error| storage(path, &error))
}

fn remove(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage(path, &error)),
        _ => Ok(()),
    }
}

fn storage(path: &Path, error: &io::Error) -> PinError {
    PinError::Storage {
        message: format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use fedlora_protocol::crypto::sign::IdentityPublic;
    use fedlora_protocol::plan::RosterEntry;

    use super::*;

    fn roster(key: u8) -> Roster {
        Roster::new(vec![RosterEntry {
            name: "a".parse().unwrap(),
            identity: IdentityPublic::from_bytes([key; 32]),
            certificate_key: Digest::from_bytes([9; 32]),
        }])
        .unwrap()
    }

    fn pin(root: &Path, named: Option<u8>) -> FileRosterPin {
        FileRosterPin::new(root, named.map(|key| roster(key).digest()))
    }

    #[test]
    fn the_first_roster_is_refused_and_kept_until_it_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let refused = pin(root, None).pin(&roster(1)).unwrap_err();
        assert!(matches!(refused, PinError::Unaccepted { change: None, .. }));
        // One that was named is another: what was named counts although nothing is pinned.
        assert!(pin(root, Some(2)).pin(&roster(1)).is_err());
        let known = pin(root, None).known().unwrap();
        assert_eq!((known.accepted, known.pending), (None, Some(roster(1))));

        pin(root, None).accept(&roster(1)).unwrap();
        let known = pin(root, None).known().unwrap();
        assert_eq!((known.accepted, known.pending), (Some(roster(1)), None));
        pin(root, None).pin(&roster(1)).unwrap();
    }

    #[test]
    fn a_changed_roster_needs_consent() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        pin(root, Some(1)).pin(&roster(1)).unwrap();
        pin(root, None).pin(&roster(1)).unwrap();
        let refused = pin(root, None).pin(&roster(2)).unwrap_err();
        assert!(matches!(
            refused,
            PinError::Unaccepted {
                change: Some(_),
                ..
            }
        ));
        assert!(pin(root, Some(3)).pin(&roster(2)).is_err());
        // Exactly the named one: the pinned one is not it.
        assert!(pin(root, Some(2)).pin(&roster(1)).is_err());
        pin(root, Some(2)).pin(&roster(2)).unwrap();
        pin(root, None).pin(&roster(2)).unwrap();
        assert!(pin(root, None).pin(&roster(1)).is_err());
    }

    #[test]
    fn members_of_earlier_rosters_stay_known() {
        let entry = |name: &str, key: u8| RosterEntry {
            name: name.parse().unwrap(),
            identity: IdentityPublic::from_bytes([key; 32]),
            certificate_key: Digest::from_bytes([100 + key; 32]),
        };
        let (a, b, c) = (entry("a", 1), entry("b", 2), entry("c", 3));
        let roster = |entries: &[&RosterEntry]| {
            Roster::new(entries.iter().copied().cloned().collect()).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let pin = || FileRosterPin::new(folder.path(), None);
        pin().accept(&roster(&[&a, &b])).unwrap();
        assert!(pin().pin(&roster(&[&a, &c])).is_err());
        pin().accept(&roster(&[&a, &c])).unwrap();
        pin().pin(&roster(&[&a, &b, &c])).unwrap();
        assert_eq!(pin().known().unwrap().pending, None);
        assert!(pin().pin(&roster(&[&a])).is_err(), "fewer than two thirds");
    }

    #[test]
    fn a_malformed_pin_is_no_consent() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("roster.json"), "[").unwrap();
        let refused = pin(root, Some(1)).pin(&roster(1)).unwrap_err();
        assert!(matches!(refused, PinError::Storage { .. }));
    }
}
