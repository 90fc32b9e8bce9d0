//! Why a message was not taken. The round goes on without it.

use crate::ids::{Attempt, MemberIndex, RoundNumber};
use crate::wire::messages::PhaseName;

/// A message that the coordinator does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The deadline has not come.
    #[error("the phase goes on")]
    NotYet,
    /// Not of this round, attempt, roster or model.
    #[error("the message does not answer the opening of round {round}, attempt {attempt}")]
    OtherRound {
        /// The round at hand.
        round: RoundNumber,
        /// The attempt at hand.
        attempt: Attempt,
    },
    /// Not what this phase collects.
    #[error("{message} in phase {phase:?}")]
    Unexpected {
        /// What was sent.
        message: &'static str,
        /// The phase at hand.
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
        /// Who sent it.
        from: MemberIndex,
        /// Whose it claims to be.
        claimed: MemberIndex,
    },
    /// A signature that does not verify.
    #[error("member {member}'s signature does not verify")]
    Signature {
        /// Whose.
        member: MemberIndex,
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
    /// Shares for other holders than those of the round, or of another length.
    #[error(
        "member {member} sent shares for other members than the round has, or of a wrong length"
    )]
    Shares {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A share of the wrong kind, or for a member that shared no secrets.
    #[error("member {member} revealed a share of {owner} that was not asked for")]
    Share {
        /// Who sent it.
        member: MemberIndex,
        /// Whose secret it is of.
        owner: MemberIndex,
    },
}
