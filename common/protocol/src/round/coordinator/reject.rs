//! Why the coordinator refuses a message. The round continues without it.

use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::wire::messages::PhaseName;

/// Why an input is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The deadline has not passed.
    #[error("the phase is not over")]
    NotYet,
    /// Not of this round, attempt, roster or model.
    #[error("the message does not answer the opening of round {round}, attempt {attempt}")]
    OtherRound {
        /// The current round.
        round: RoundNumber,
        /// The current attempt.
        attempt: Attempt,
    },
    /// Not what this phase collects.
    #[error("{message} sent {}", place(*phase))]
    Unexpected {
        /// The kind of message that was sent.
        message: &'static str,
        /// The current phase; `None` after the end.
        phase: Option<PhaseName>,
    },
    /// From a member that the phase does not wait for: it left, answered before, or never
    /// took part.
    #[error(
        "member {member} is not awaited in this phase: it answered before, left, or took no part"
    )]
    NotAwaited {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// Sent in another member's name.
    #[error("member {from} sent a message in the name of member {claimed}")]
    Impersonation {
        /// The member that sent it.
        from: MemberIndex,
        /// The member in whose name it was sent.
        claimed: MemberIndex,
    },
    /// A signature that does not verify.
    #[error("member {member}'s signature does not verify")]
    Signature {
        /// The member whose signature it should be.
        member: MemberIndex,
    },
    /// A weight class above the plan's highest: no member would take part with it.
    #[error("member {member} has weight class {got}, above the plan's highest")]
    Weight {
        /// The member's place in the roster.
        member: MemberIndex,
        /// Its class.
        got: u8,
    },
    /// A member that revealed shares for this round before, by what it says: no member would take
    /// part with it.
    #[error("member {member} says that it revealed shares for round {revealed} before")]
    RevealedBefore {
        /// The member's place in the roster.
        member: MemberIndex,
        /// The newest round that it revealed shares for.
        revealed: RoundNumber,
    },
    /// Keys that another member of the round has.
    #[error("member {member} sent a key that another member sent too")]
    RepeatedKey {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A key of small order or not in canonical form, which every member would refuse.
    #[error("member {member} sent a key of small order, or not in canonical form")]
    WeakKey {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A contributor's part of the beacon is missing, forged, or not what it committed to.
    #[error("member {member} did not open its part of the beacon as it committed to it")]
    Beacon {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// Shares for other holders than those of the round, or of another length.
    #[error(
        "member {member} sent shares for other members than the round has, or of a wrong length"
    )]
    Shares {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A claim to have masked among other members than those of the round.
    #[error("member {member} claims to have masked among other members than those of the round")]
    Dealers {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A share of the wrong kind, or of a member whose shares it does not hold.
    #[error("member {member} revealed a share of {owner} that was not asked for")]
    Share {
        /// The member that revealed it.
        member: MemberIndex,
        /// The member whose secret it is a share of.
        owner: MemberIndex,
    },
}

impl Reject {
    /// Whether such a message is to be expected of honest members: it came late, twice or early.
    pub fn is_harmless(&self) -> bool {
        match self {
            Self::NotYet
            | Self::OtherRound { .. }
            | Self::Unexpected { .. }
            | Self::NotAwaited { .. } => true,
            Self::Impersonation { .. }
            | Self::Signature { .. }
            | Self::Weight { .. }
            | Self::RevealedBefore { .. }
            | Self::RepeatedKey { .. }
            | Self::WeakKey { .. }
            | Self::Beacon { .. }
            | Self::Shares { .. }
            | Self::Dealers { .. }
            | Self::Share { .. } => false,
        }
    }
}

/// Where in the round a message came, in words.
fn place(phase: Option<PhaseName>) -> String {
    match phase {
        Some(phase) => format!("in the {phase} phase"),
        None => "after the end of the round".to_owned(),
    }
}
