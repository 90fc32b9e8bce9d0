//! Why an attempt at a round failed, and the phases that it can fail in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::MemberIndex;

/// Why an attempt at a round failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RoundFailure {
    /// Too few members went through a phase.
    #[error("{got} members answered in the {phase} phase, {needed} are needed")]
    Quorum {
        /// The phase that closed.
        phase: PhaseName,
        /// Members that answered.
        got: u16,
        /// Members that the phase needs.
        needed: u16,
    },
    /// A contributor did not open its part of the beacon.
    #[error("member {member} did not open its part of the beacon that neighbours are drawn from")]
    Beacon {
        /// The contributor.
        member: MemberIndex,
    },
    /// A member shared its secrets inconsistently, which shows in the reveal alone.
    #[error(
        "member {member} dealt shares that are what it committed to, and do not recover what it \
         committed to"
    )]
    Deal {
        /// The dealer.
        member: MemberIndex,
    },
    /// The revealed shares do not recover the secrets that the members committed to.
    #[error("the revealed shares do not recover the masks")]
    Recovery,
    /// The unmasked sum is not a sum of encoded updates.
    #[error("the unmasked sum is not a sum of encoded updates")]
    Sum,
    /// The aggregator could not store or read what it needs.
    #[error("the aggregator's storage failed")]
    Storage,
    /// Too few groups of a robust round kept enough members for a sum.
    #[error(
        "{got} groups have enough members in the {phase} phase, and the plan's rule takes {needed}"
    )]
    Groups {
        /// The phase that closed.
        phase: PhaseName,
        /// Groups that have enough members.
        got: u16,
        /// Groups that the rule takes.
        needed: u16,
    },
}

/// The coordinator's phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseName {
    /// Collects the commitments to the beacon, where the round has one.
    Commit,
    /// Collects the keys (M1).
    Keys,
    /// Collects the sealed shares (M2).
    Shares,
    /// Collects what the holders say of the shares (M2).
    Held,
    /// Collects the masked updates (M3).
    Updates,
    /// Collects the signatures on the survivor list (M4).
    Confirm,
    /// Collects the revealed shares (M5).
    Reveal,
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Keys => "keys",
            Self::Shares => "shares",
            Self::Held => "held",
            Self::Updates => "updates",
            Self::Confirm => "confirm",
            Self::Reveal => "reveal",
        })
    }
}
