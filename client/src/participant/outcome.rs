//! How a run ended for this member.

use fedlora_adapter::{Adapter, AdapterError};
use fedlora_common::digest::Digest;
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::{FloorBreach, PlanError};
use fedlora_protocol::round::participant::Refusal;
use fedlora_transport::TransportError;

use crate::connection::LinkError;
use crate::directory::PinError;
use crate::update::UpdateError;
use fedlora_train::TrainError;

/// A run that ended well.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The run.
    pub run: RunId,
    /// The name of the base model, for the adapter's files.
    pub base_name: String,
    /// The final global adapter.
    pub adapter: Adapter,
    /// Rounds that were done.
    pub rounds: u32,
    /// Rounds in whose sum this member is.
    pub took_part: u32,
}

/// Why a member stopped taking part.
#[derive(Debug, thiserror::Error)]
pub enum ParticipantError {
    /// The plan.
    #[error("the run's plan: {0}")]
    Plan(#[from] PlanError),
    /// The plan does not meet this member's floors.
    #[error(
        "{0}: raise the floor in fedlora.toml to take part, or ask the operator for another plan"
    )]
    Floor(#[from] FloorBreach),
    /// The roster.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The roster is not as large as the plan says.
    #[error("the roster holds {got} members; the plan that this member accepted is for {planned}")]
    RosterSize {
        /// Members on the roster.
        got: usize,
        /// Members that the plan is for.
        planned: usize,
    },
    /// The aggregator began another run.
    #[error(
        "the aggregator serves another run now: one start is consent to one run; start again \
         to take part in this one"
    )]
    OtherRun,
    /// This member is not on the roster.
    #[error("the roster does not hold this member's name and keys")]
    NotOnRoster,
    /// The aggregator asked for something that this member refuses for good.
    #[error("refused to go on: {0}")]
    Refusal(Refusal),
    /// The aggregator refused this member.
    #[error("the aggregator refused: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
    },
    /// The run failed.
    #[error("the run failed: {reason}")]
    Failed {
        /// The aggregator's reason.
        reason: String,
    },
    /// A fetched adapter is not the one that the result names.
    #[error("the fetched adapter has digest {got}; the signed result names {expected}")]
    OtherAdapter {
        /// What was fetched.
        got: Digest,
        /// What the result names.
        expected: Digest,
    },
    /// A run ended without any result.
    #[error("the run ended before its first round was done")]
    Nothing,
    /// Training.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// An adapter that is none.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The connection, for good.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl ParticipantError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Plan(PlanError::Signature(_))
            | Self::Pin(_)
            | Self::RosterSize { .. }
            | Self::OtherRun
            | Self::NotOnRoster => Exit::Integrity,
            Self::Plan(_) | Self::Floor(_) => Exit::Configuration,
            Self::Refusal(_) | Self::OtherAdapter { .. } => Exit::Integrity,
            Self::Refused { .. } => Exit::Identity,
            Self::Failed { .. } | Self::Nothing => Exit::Quorum,
            Self::Update(UpdateError::Train(TrainError::Options(_))) => Exit::Configuration,
            Self::Update(UpdateError::Panicked) => Exit::Failed,
            Self::Update(_) | Self::Adapter(_) => Exit::Data,
            Self::Link(LinkError::Transport(error)) if is_identity(error) => Exit::Identity,
            Self::Link(_) => Exit::Network,
        }
    }
}

/// Whether trying again cannot help: one side's certificate is refused by the other.
pub(super) fn is_identity(error: &TransportError) -> bool {
    matches!(
        error,
        TransportError::CertificateRefused { .. }
            | TransportError::ServerCertificate(_)
            | TransportError::Refused { .. }
    )
}
