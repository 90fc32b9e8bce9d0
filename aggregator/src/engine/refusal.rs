//! Why a member or its update is refused. The member gets these words unchanged.

use std::io;

use fedlora_adapter::AdapterError;
use fedlora_common::digest::Digest;
use fedlora_protocol::round::coordinator::Reject;
use fedlora_protocol::wire::messages::ToMember;

/// Why a member cannot take part in the run.
#[derive(Debug, thiserror::Error)]
pub enum MemberRefusal {
    /// It trains another base model than the plan names.
    #[error(
        "this run is about base model {expected}, and yours is {found}: use the same checkpoint \
         as the other members"
    )]
    OtherBase {
        /// The plan's base model.
        expected: Digest,
        /// The member's base model.
        found: Digest,
    },
    /// Its adapter's layout cannot have the plan's configuration.
    #[error("the adapter's layout does not fit the plan: {0}")]
    Layout(#[source] AdapterError),
    /// Its first adapter is not the one that follows from the plan.
    #[error(
        "your first adapter is not the one that the plan's seed gives: use the same release of \
         fedlora as the aggregator"
    )]
    OtherAdapter,
    /// Its base does not fit the adapter that the run begins from.
    #[error(
        "the adapter that this run begins from has another layout than adapters on your base model: use \
         the same checkpoint as the other members"
    )]
    OtherStart,
    /// The cohort was complete without it.
    #[error("the run began with other members: its roster is closed")]
    RosterClosed,
}

impl MemberRefusal {
    /// The refusal as a control message.
    pub(super) fn message(&self) -> ToMember {
        ToMember::Refused {
            reason: self.to_string(),
        }
    }
}

/// Why a masked update is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadRefusal {
    /// No round is open.
    #[error("no round is open")]
    NoRound,
    /// The sender is not a member of the run.
    #[error("you are not on this run's roster")]
    NotOnRoster,
    /// The round does not wait for the sender.
    #[error("no update is awaited from you")]
    NotAwaited,
    /// It answers another opening than the current round's.
    #[error("the update is not of the current round")]
    OtherRound,
    /// It has another length than the round's layout and bits give.
    #[error("a masked update of this round takes {expected} bytes, not {found}")]
    Length {
        /// The round's length in bytes.
        expected: u64,
        /// The length claimed, in bytes.
        found: u64,
    },
    /// The stored bytes cannot be read back, or are not a packed vector of this round.
    #[error(transparent)]
    Stored(#[from] io::Error),
    /// The coordinator did not take the claim.
    #[error("{said}")]
    Rejected {
        /// What is wrong with it.
        #[source]
        reject: Reject,
        /// The same in words, with the members' names.
        said: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_refused_in_these_words() {
        assert_eq!(
            MemberRefusal::RosterClosed.message(),
            ToMember::Refused {
                reason: "the run began with other members: its roster is closed".into()
            }
        );
        let length = UploadRefusal::Length {
            expected: 8,
            found: 9,
        };
        assert_eq!(
            length.to_string(),
            "a masked update of this round takes 8 bytes, not 9"
        );
        let one_line = MemberRefusal::OtherBase {
            expected: Digest::from_bytes([1; 32]),
            found: Digest::from_bytes([2; 32]),
        };
        assert!(!one_line.to_string().contains("  "), "{one_line}");
    }
}
