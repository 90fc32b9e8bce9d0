//! The roster: who takes part in a run, in a fixed order, with their keys.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::crypto::sign::IdentityPublic;
use crate::ids::{MemberIndex, MemberName};
use fedlora_common::digest::{Digest, DigestWriter};

/// A member of a run, with the keys by which the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterEntry {
    /// The member's name, unique on the roster.
    pub name: MemberName,
    /// Its identity key, which signs its protocol messages.
    pub identity: IdentityPublic,
    /// The digest of its TLS public key.
    pub certificate_key: Digest,
}

/// All members of a run, ordered by name, names and keys distinct. A member's place is its
/// [`MemberIndex`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<RosterEntry>", into = "Vec<RosterEntry>")]
pub struct Roster(Vec<RosterEntry>);

impl Roster {
    /// Orders the entries by name.
    ///
    /// # Errors
    /// [`RosterError`] for a name or key that occurs twice, or more than 65535 entries.
    pub fn new(mut entries: Vec<RosterEntry>) -> Result<Self, RosterError> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Self::try_from(entries)
    }

    /// The members in the order of their names, which is that of their indices.
    pub fn entries(&self) -> &[RosterEntry] {
        &self.0
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the roster has no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member with this index; `None` past the last.
    pub fn get(&self, index: MemberIndex) -> Option<&RosterEntry> {
        self.0.get(usize::from(index.0))
    }

    /// The index of the member with this name.
    pub fn index_of(&self, name: &MemberName) -> Option<MemberIndex> {
        self.0
            .binary_search_by(|entry| entry.name.cmp(name))
            .ok()
            .map(|place| MemberIndex(place as u16))
    }

    /// The index of every member, ascending.
    pub fn indices(&self) -> impl Iterator<Item = MemberIndex> + use<> {
        (0..self.0.len() as u16).map(MemberIndex)
    }

    /// A text of the protocol for people: members' names in place of their indices, which it writes as
    /// `#0`. An index that the roster does not have stays.
    pub fn naming(&self, text: &str) -> String {
        let mut parts = text.split('#');
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_digit());
            let (digits, rest) = part.split_at(digits.unwrap_or(part.len()));
            let entry = digits.parse().ok().and_then(|at| self.get(MemberIndex(at)));
            match entry {
                Some(entry) => named.push_str(entry.name.as_str()),
                None => {
                    named.push('#');
                    named.push_str(digits);
                }
            }
            named.push_str(rest);
        }
        named
    }

    /// The digest of all entries in order, which members pin and every M0 repeats.
    pub fn digest(&self) -> Digest {
        let mut writer = DigestWriter::new("fedlora 1 roster");
        writer.number(self.0.len() as u64);
        for entry in &self.0 {
            writer
                .bytes(entry.name.as_str().as_bytes())
                .raw(entry.identity.as_bytes())
                .digest(&entry.certificate_key);
        }
        writer.finish()
    }
}

impl TryFrom<Vec<RosterEntry>> for Roster {
    type Error = RosterError;

    fn try_from(entries: Vec<RosterEntry>) -> Result<Self, RosterError> {
        if entries.len() > usize::from(u16::MAX) {
            return Err(RosterError::TooMany { got: entries.len() });
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name >= pair[1].name) {
            return Err(RosterError::Order {
                name: pair[1].name.clone(),
            });
        }
        let mut seen = HashSet::new();
        for entry in &entries {
            if !seen.insert(*entry.identity.as_bytes())
                || !seen.insert(*entry.certificate_key.as_bytes())
            {
                return Err(RosterError::Key {
                    name: entry.name.clone(),
                });
            }
        }
        Ok(Self(entries))
    }
}

impl From<Roster> for Vec<RosterEntry> {
    fn from(roster: Roster) -> Self {
        roster.0
    }
}

/// Why a list of members is not a roster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// More members than a [`MemberIndex`] can number.
    #[error("{got} members: a roster holds at most 65535")]
    TooMany {
        /// Entries in the list.
        got: usize,
    },
    /// A name twice, or out of order.
    #[error("member {name} occurs twice on the roster, or out of order")]
    Order {
        /// The name of the second of the two entries.
        name: MemberName,
    },
    /// An identity key or certificate key that occurs twice.
    #[error("member {name} has a key that another entry of the roster has too")]
    Key {
        /// The member whose entry comes second.
        name: MemberName,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, key: u8) -> RosterEntry {
        RosterEntry {
            name: name.parse().unwrap(),
            identity: IdentityPublic::from_bytes([key; 32]),
            certificate_key: Digest::from_bytes([key + 100; 32]),
        }
    }

    #[test]
    fn order_does_not_matter_but_content_does() {
        let one = Roster::new(vec![entry("b", 2), entry("a", 1)]).unwrap();
        let two = Roster::new(vec![entry("a", 1), entry("b", 2)]).unwrap();
        assert_eq!(one.digest(), two.digest());
        assert_eq!(one.index_of(&"b".parse().unwrap()), Some(MemberIndex(1)));
        assert_eq!(one.index_of(&"c".parse().unwrap()), None);
        let other = Roster::new(vec![entry("a", 1), entry("b", 3)]).unwrap();
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn people_read_names_in_place_of_indices() {
        let roster = Roster::new(vec![entry("a", 1), entry("hospital-b", 2)]).unwrap();
        for (text, read) in [
            ("member #1 says so", "member hospital-b says so"),
            ("#0's and #1", "a's and hospital-b"),
            ("member #7 is not there", "member #7 is not there"),
            (
                "issue #, #x, # 1 and #99999999",
                "issue #, #x, # 1 and #99999999",
            ),
            ("", ""),
        ] {
            assert_eq!(roster.naming(text), read);
        }
    }

    #[test]
    fn doubles_are_refused() {
        assert!(Roster::new(vec![entry("a", 1), entry("a", 2)]).is_err());
        assert!(Roster::new(vec![entry("a", 1), entry("b", 1)]).is_err());
        // Out of order on the wire.
        assert!(Roster::try_from(vec![entry("b", 1), entry("a", 2)]).is_err());
    }
}
