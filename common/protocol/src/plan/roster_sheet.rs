//! What people compare of a roster: names, key fingerprints, and the words of the whole.

use std::fmt;

use serde::Serialize;

use fedlora_common::digest::Digest;

use crate::ids::MemberName;

use super::roster::Roster;
use super::roster_words::RosterWords;

/// A roster as it is shown to people and to scripts. Its text is a table, its JSON has the
/// fields by their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RosterSheet {
    /// The roster's digest.
    pub digest: Digest,
    /// The words that stand for it.
    pub words: RosterWords,
    /// The members in the roster's order.
    pub members: Vec<SheetMember>,
}

/// A member on a [`RosterSheet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SheetMember {
    /// The member's name.
    pub name: MemberName,
    /// The fingerprint of its identity key.
    pub fingerprint: Digest,
}

impl RosterSheet {
    /// The sheet of a roster. Takes about 0.1 s and 64 MiB, for the words.
    pub fn of(roster: &Roster) -> Self {
        let digest = roster.digest();
        Self {
            digest,
            words: RosterWords::of(&digest),
            members: roster
                .entries()
                .iter()
                .map(|entry| SheetMember {
                    name: entry.name.clone(),
                    fingerprint: entry.identity.fingerprint(),
                })
                .collect(),
        }
    }
}

impl fmt::Display for RosterSheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.members.iter().map(|member| member.name.as_str().len());
        let width = names.max().unwrap_or_default().max("member".len());
        writeln!(f, "{:width$}  key fingerprint", "member")?;
        for member in &self.members {
            writeln!(f, "{:width$}  {}", member.name.as_str(), member.fingerprint)?;
        }
        writeln!(f, "roster  {}", self.digest)?;
        write!(f, "words   {}", self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sign::IdentityPublic;
    use crate::plan::RosterEntry;

    #[test]
    fn text_and_json_name_every_member_digest_and_words() {
        let entry = |name: &str, key: u8| RosterEntry {
            name: name.parse().unwrap(),
            identity: IdentityPublic::from_bytes([key; 32]),
            certificate_key: Digest::from_bytes([key + 100; 32]),
        };
        let roster = Roster::new(vec![entry("hospital-a", 1), entry("b", 2)]).unwrap();
        let sheet = RosterSheet::of(&roster);
        let text = sheet.to_string();
        let json = serde_json::to_value(&sheet).unwrap();
        assert_eq!(json["digest"], roster.digest().to_string());
        assert_eq!(json["words"].as_array().unwrap().len(), 8);
        assert!(text.contains(&sheet.words.to_string()));
        assert!(text.contains(&roster.digest().to_string()));
        for (place, entry) in roster.entries().iter().enumerate() {
            let fingerprint = entry.identity.fingerprint().to_string();
            assert_eq!(json["members"][place]["name"], entry.name.as_str());
            assert_eq!(json["members"][place]["fingerprint"], fingerprint);
            let line = text.lines().nth(place + 1).unwrap();
            assert!(line.contains(entry.name.as_str()) && line.contains(&fingerprint));
        }
    }
}
