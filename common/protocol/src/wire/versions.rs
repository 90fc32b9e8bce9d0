//! Which versions of the messages two programs can speak with each other.
//!
//! A hello names all versions that its program speaks, and the answer the one that both use: the newest
//! of those that they have in common. So that this works for ever, a hello and its answer keep their
//! form in every version; what a version adds goes into messages that follow.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The newest version of all messages in [`super`].
pub const PROTOCOL: u16 = 9;

/// The first version in which a member is told that its keys are in use elsewhere
/// ([`ToMember::CopySeen`](super::messages::ToMember::CopySeen)).
pub const TELLS_OF_COPIES: u16 = 9;

/// Versions that a program speaks, from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The oldest.
    pub oldest: u16,
    /// The newest, not below the oldest.
    pub newest: u16,
}

impl Protocols {
    /// Those of this release.
    pub const OWN: Self = Self {
        oldest: 8,
        newest: PROTOCOL,
    };

    /// The newest version that both speak.
    ///
    /// # Errors
    /// [`NoCommonProtocol`] where there is none.
    pub fn common(self, other: Self) -> Result<u16, NoCommonProtocol> {
        let newest = self.newest.min(other.newest);
        let spoken = newest >= self.oldest.max(other.oldest);
        // A range the wrong way round has nothing in it.
        let sound = other.oldest <= other.newest;
        match spoken && sound {
            true => Ok(newest),
            false => Err(NoCommonProtocol { own: self, other }),
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { oldest, newest } = self;
        match oldest == newest {
            true => write!(f, "{newest}"),
            false => write!(f, "{oldest} to {newest}"),
        }
    }
}

/// Two programs that have no version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocol {own} here and {other} on the other side have no version in common")]
pub struct NoCommonProtocol {
    /// The versions of this program.
    pub own: Protocols,
    /// Those of the other side.
    pub other: Protocols,
}

impl NoCommonProtocol {
    /// Whether it is the other side's program that has to be upgraded.
    pub fn is_other_older(&self) -> bool {
        self.other.newest < self.own.oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocols(oldest: u16, newest: u16) -> Protocols {
        Protocols { oldest, newest }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        for (own, other, expected) in [
            ((7, 7), (7, 7), Some(7)),
            ((7, 7), (7, 8), Some(7)),
            ((7, 8), (7, 7), Some(7)),
            ((7, 8), (8, 9), Some(8)),
            ((6, 9), (7, 8), Some(8)),
            ((7, 8), (9, 10), None),
            ((9, 10), (7, 8), None),
            ((7, 8), (9, 7), None),
            ((7, 8), (8, 7), None),
        ] {
            let (own, other) = (protocols(own.0, own.1), protocols(other.0, other.1));
            assert_eq!(own.common(other).ok(), expected, "{own} and {other}");
        }
        assert_eq!(Protocols::OWN.common(Protocols::OWN), Ok(PROTOCOL));
    }

    #[test]
    fn it_is_known_who_has_to_upgrade() {
        let none = |own, other| {
            let none = protocols(own, own).common(protocols(other, other));
            none.unwrap_err()
        };
        assert!(none(8, 7).is_other_older());
        assert!(!none(7, 8).is_other_older());
    }
}
