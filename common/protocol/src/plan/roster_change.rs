//! What differs between two rosters, by the members' names.

use std::fmt;

use crate::ids::MemberName;

use super::roster::{Roster, RosterEntry};

/// What a member is shown of a roster that is not the one it accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterChange {
    /// Members that the earlier roster does not have, by name.
    pub joined: Vec<MemberName>,
    /// Members that the later roster does not have, by name.
    pub left: Vec<MemberName>,
    /// Members on both, with another identity key or another TLS key.
    pub changed_keys: Vec<MemberName>,
}

impl RosterChange {
    /// What differs between the roster that was accepted and the one that is shown.
    pub fn between(accepted: &Roster, shown: &Roster) -> Self {
        let find = |roster: &Roster, name: &MemberName| -> Option<RosterEntry> {
            roster.get(roster.index_of(name)?).cloned()
        };
        let missing = |from: &Roster, of: &Roster| -> Vec<MemberName> {
            let names = of.entries().iter().map(|entry| &entry.name);
            names
                .filter(|name| from.index_of(name).is_none())
                .cloned()
                .collect()
        };
        let changed = shown
            .entries()
            .iter()
            .filter(|entry| find(accepted, &entry.name).is_some_and(|earlier| earlier != **entry));
        Self {
            joined: missing(accepted, shown),
            left: missing(shown, accepted),
            changed_keys: changed.map(|entry| entry.name.clone()).collect(),
        }
    }
}

impl fmt::Display for RosterChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, names) in [
            ("joined", &self.joined),
            ("left", &self.left),
            ("changed keys", &self.changed_keys),
        ] {
            if names.is_empty() {
                continue;
            }
            let names: Vec<_> = names.iter().map(MemberName::as_str).collect();
            write!(f, "{separator}{what}: {}", names.join(", "))?;
            separator = "; ";
        }
        if separator.is_empty() {
            f.write_str("nothing changed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fedlora_common::digest::Digest;

    use super::*;
    use crate::crypto::sign::IdentityPublic;

    fn roster(members: &[(&str, u8, u8)]) -> Roster {
        let entry = |&(name, identity, certificate): &(&str, u8, u8)| RosterEntry {
            name: name.parse().unwrap(),
            identity: IdentityPublic::from_bytes([identity; 32]),
            certificate_key: Digest::from_bytes([certificate; 32]),
        };
        Roster::new(members.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn a_change_is_told_by_names() {
        let before = roster(&[("a", 1, 101), ("b", 2, 102), ("c", 3, 103), ("d", 4, 104)]);
        let after = roster(&[("a", 1, 101), ("b", 9, 102), ("d", 4, 109), ("e", 5, 105)]);
        let change = RosterChange::between(&before, &after);
        assert_eq!(change.to_string(), "joined: e; left: c; changed keys: b, d");
        let none = RosterChange::between(&before, &before);
        assert_eq!(none.to_string(), "nothing changed");
    }
}
