//! Why a round cannot be measured.

use fedlora_common::exit::Exit;
use fedlora_protocol::fixed::{FixedError, RoundSumError};
use fedlora_protocol::round::coordinator::Fault;
use fedlora_protocol::round::participant::Refusal;
use fedlora_protocol::secagg::PolicyError;
use fedlora_protocol::wire::messages::RoundFailure;

/// Why a round cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecaggError {
    /// A cohort that cannot be protected.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Too few members remain.
    #[error("{survivors} members remain, and a round of this size needs {quorum}: drop fewer")]
    Quorum {
        /// Members that upload.
        survivors: usize,
        /// The fewest that a phase may close with.
        quorum: usize,
    },
    /// The thread pool cannot be made.
    #[error("the threads cannot be started: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A member refused.
    #[error("a member refuses the round: {0}")]
    Refusal(#[from] Refusal),
    /// An update cannot be encoded.
    #[error(transparent)]
    Fixed(#[from] FixedError),
    /// The round fails.
    #[error("the round fails: {0}")]
    Round(RoundFailure),
    /// An honest member is blamed.
    #[error("an honest member is blamed: {0}")]
    Fault(Fault),
    /// The sum is not one of updates.
    #[error(transparent)]
    Sum(#[from] RoundSumError),
}

impl SecaggError {
    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Policy(_) | Self::Quorum { .. } => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}
