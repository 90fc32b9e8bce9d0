//! Why a run ended before its plan did.

use fedlora_protocol::ids::{MemberName, RoundNumber};
use fedlora_protocol::plan::RosterError;
use fedlora_protocol::wire::messages::RoundFailure;

use super::cohort::Shortfall;
use crate::audit::{AuditError, RecordError};
use crate::publish::PublishError;
use crate::registry::RegistryError;

/// Why a run ended before its plan did.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// The cohort was not complete in time.
    #[error("{0}")]
    Members(Shortfall),
    /// Too few members accepted the roster in time.
    #[error("{accepted} members accepted the roster in time; a round needs {quorum}")]
    Consent {
        /// Members that accepted it.
        accepted: usize,
        /// The fewest that a round needs.
        quorum: usize,
    },
    /// A ready member has no record, so its keys are unknown.
    #[error("{name} is connected but not recorded as a member")]
    NotRecorded {
        /// The member's name.
        name: MemberName,
    },
    /// The cohort's records make no roster.
    #[error(transparent)]
    Roster(#[from] RosterError),
    /// A round failed, and must not or will not be tried again.
    #[error("round {round} failed: {said}")]
    Round {
        /// The round's number.
        round: RoundNumber,
        /// Why its last attempt failed.
        reason: RoundFailure,
        /// The same in words, with the members' names.
        said: String,
    },
    /// The outcome could not be stored.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// What an audit needs of the run could not be kept.
    #[error(transparent)]
    Audit(#[from] RecordError),
    /// A member's record could not be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Too few members came back to a run that was taken up.
    #[error("{back} members came back in time; a round needs {quorum}")]
    Away {
        /// Members that came back.
        back: usize,
        /// The fewest that a round needs.
        quorum: usize,
    },
    /// A run that is not over cannot be taken up.
    #[error("the run cannot be taken up: {0}")]
    TakeUp(#[from] AuditError),
    /// The endpoint was closed.
    #[error("the aggregator was stopped")]
    Stopped,
}

impl RunFailure {
    /// Whether the run is over. What this machine could not do it may do once it is started again.
    pub fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Publish(_)
                | Self::Audit(_)
                | Self::Registry(_)
                | Self::Away { .. }
                | Self::TakeUp(_)
                | Self::Stopped
        )
    }
}
