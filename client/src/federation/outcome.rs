//! Why a member stops taking part before the run's end.

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::round::member::{MemberError, PinError};
use fedlora_transport::{ServerCertificateProblem, TransportError};

use super::link::LinkError;
use crate::receipts::ReceiptsError;
use crate::remedy::Remedy;
use crate::update::UpdateError;

/// Why a member stopped taking part.
#[derive(Debug, thiserror::Error)]
pub enum ParticipantError {
    /// The protocol's rules end the run for this member.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Another run, or another plan of it, than the one that this member agreed to.
    #[error(
        "this member agreed to run {expected}; the aggregator serves {} now",
        if expected == found { "it by another plan".to_owned() } else { format!("run {found}") }
    )]
    OtherRun {
        /// The run that this member agreed to.
        expected: RunId,
        /// The run that is served.
        found: RunId,
    },
    /// The plan begins from an adapter that this member has not held in a run of this aggregator's.
    #[error("the plan begins from adapter {adapter}, which this member has not held in any run")]
    UnknownStart {
        /// The digest in the plan.
        adapter: Digest,
    },
    /// The adapter that the plan begins from does not fit this member's base, or cannot be had.
    #[error("the plan begins from adapter {}, which this member cannot begin from: {reason}", adapter.short())]
    Start {
        /// The digest in the plan.
        adapter: Digest,
        /// What is wrong, in words.
        reason: String,
    },
    /// Base model, memory or training.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// What the aggregator shows contradicts what it has shown before, or that cannot be told.
    #[error(transparent)]
    Receipts(#[from] ReceiptsError),
    /// The connection, where trying again cannot help or took too long.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl ParticipantError {
    /// What the user may do about it, where this is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Member(MemberError::Pin(PinError::Unaccepted { got, .. })) => {
                Some(Remedy::AcceptRoster { roster: *got })
            }
            Self::Member(MemberError::WeightClass { own }) => {
                Some(Remedy::AgreeToClass { class: *own })
            }
            Self::UnknownStart { .. } => Some(Remedy::AllowUnknownStart),
            Self::Link(error) if is_replaced(error) => Some(Remedy::EndCopies),
            _ => None,
        }
    }

    /// Whether the run is over for this member: trying again would lead to the same.
    pub fn ends_run(&self) -> bool {
        match self {
            // The run is served by another plan. Another run says nothing of this one.
            Self::OtherRun { expected, found } => expected == found,
            Self::Member(error) => matches!(
                error,
                MemberError::Failed { .. } | MemberError::NoResult | MemberError::Refused { .. }
            ),
            Self::UnknownStart { .. }
            | Self::Start { .. }
            | Self::Update(_)
            | Self::Receipts(_)
            | Self::Link(_) => false,
        }
    }

    /// What would help where this member does not accept the plan.
    pub fn plan_remedy(&self) -> Option<fedlora_protocol::Remedy> {
        match self {
            Self::Member(error) => error.remedy(),
            Self::OtherRun { .. }
            | Self::UnknownStart { .. }
            | Self::Start { .. }
            | Self::Update(_)
            | Self::Receipts(_)
            | Self::Link(_) => None,
        }
    }

    /// What would help where the base, the device or its memory is in the way.
    pub fn training_remedy(&self) -> Option<fedlora_train::Remedy> {
        match self {
            Self::Update(UpdateError::DoesNotFit(error)) => error.remedy(),
            _ => None,
        }
    }
}

/// Whether trying again cannot help.
pub fn is_hopeless(error: &LinkError) -> bool {
    matches!(error, LinkError::Transport(error) if is_identity(error))
}

/// Whether a clock is wrong, or the aggregator was asleep: its certificate is not valid now, and it gets
/// another by itself. Worth waiting for, where somebody waits for months anyway.
pub fn is_of_a_clock(error: &LinkError) -> bool {
    use ServerCertificateProblem::NotValidNow;
    let LinkError::Transport(TransportError::ServerCertificate(problem)) = error else {
        return false;
    };
    matches!(problem, NotValidNow { .. })
}

/// What the aggregator is told where this member does not take part: only what its operator can do
/// something about, and nothing of this member's records or machine.
pub(super) fn declined(error: &ParticipantError) -> Option<String> {
    match error {
        ParticipantError::Member(MemberError::Floor(breach)) => Some(breach.to_string()),
        // The class itself is what it has not agreed to show.
        ParticipantError::Member(MemberError::WeightClass { .. }) => {
            Some("this member has not agreed to show its weight class".to_owned())
        }
        ParticipantError::Member(MemberError::Pin(PinError::Unaccepted { .. })) => {
            Some("this member has not accepted the roster".to_owned())
        }
        ParticipantError::UnknownStart { .. } => {
            Some("this member has not held the adapter that the plan begins from".to_owned())
        }
        ParticipantError::Start { .. } => {
            Some("the adapter that the plan begins from does not fit this member's base".to_owned())
        }
        ParticipantError::Update(UpdateError::NothingWithin { .. }) => {
            Some("none of this member's records has a response within the plan's cut".to_owned())
        }
        ParticipantError::Update(UpdateError::DoesNotFit(_)) => {
            Some("the plan's training does not fit into this member's memory".to_owned())
        }
        _ => None,
    }
}

/// Whether somebody else has taken part with this member's keys meanwhile. To try again would only put the
/// other out, and the two would answer for one member with a ledger each.
pub(super) fn is_replaced(error: &LinkError) -> bool {
    matches!(error, LinkError::Transport(TransportError::Replaced))
}

/// Whether trying again cannot help: one side's certificate is refused by the other, or its keys are in use
/// elsewhere.
fn is_identity(error: &TransportError) -> bool {
    matches!(
        error,
        TransportError::CertificateRefused { .. }
            | TransportError::ServerCertificate(_)
            | TransportError::Refused { .. }
            | TransportError::Replaced
    )
}
