//! Why a member stops taking part before the run's end.

use fedlora_common::exit::Exit;
use fedlora_protocol::plan::PlanError;
use fedlora_protocol::round::member::{MemberError, PinError};
use fedlora_train::TrainError;
use fedlora_transport::TransportError;

use crate::connection::LinkError;
use crate::remedy::Remedy;
use crate::update::UpdateError;

/// Why a member stopped taking part.
#[derive(Debug, thiserror::Error)]
pub enum ParticipantError {
    /// The protocol's rules end the run for this member.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Base model, memory or training.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The connection, where trying again cannot help or took too long.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl ParticipantError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Member(error) => member_exit(error),
            Self::Update(UpdateError::Train(TrainError::Option { .. })) => Exit::Configuration,
            Self::Update(UpdateError::Panicked) => Exit::Failed,
            Self::Update(_) => Exit::Data,
            Self::Link(LinkError::Transport(error)) if is_identity(error) => Exit::Identity,
            Self::Link(_) => Exit::Network,
        }
    }

    /// What the user may do about it, where this is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Member(MemberError::Pin(PinError::Changed { got, .. })) => {
                Some(Remedy::AcceptRoster { roster: *got })
            }
            _ => None,
        }
    }
}

fn member_exit(error: &MemberError) -> Exit {
    match error {
        MemberError::Plan(PlanError::Signature(_))
        | MemberError::Pin(_)
        | MemberError::RosterSize { .. }
        | MemberError::OtherRun
        | MemberError::NotOnRoster
        | MemberError::Refusal(_)
        | MemberError::OtherAdapter { .. } => Exit::Integrity,
        MemberError::Plan(_) | MemberError::Floor(_) => Exit::Configuration,
        MemberError::Refused { .. } => Exit::Identity,
        MemberError::Failed { .. } | MemberError::NoResult => Exit::Quorum,
        MemberError::Adapter(_) => Exit::Data,
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
