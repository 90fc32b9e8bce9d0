//! Which exit code each error ends the program with, and the failures made of them.

use fedlora_common::exit::Exit;
use fedlora_protocol::wire::messages::RoundFailure;
use fedlora_shell::Failure;

use super::hints;
use crate::adapters::StartError;
use crate::audit::AuditError;
use crate::ca::apart::CarriedError;
use crate::ca::sign::SignError;
use crate::ca::{CaError, TokenError};
use crate::config::ConfigError;
use crate::daemon::ServeError;
use crate::database::StoreError;
use crate::directory::DirectoryError;
use crate::engine::RunFailure;
use crate::operators::OperatorsError;
use crate::optimizer::StateError;
use crate::registry::RegistryError;

/// A configuration that cannot be followed.
pub(super) fn configuration(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Configuration, error)
}

/// An address that no configuration can be made of.
pub(super) fn address(error: ConfigError) -> Failure {
    let hint = error.remedy().map(|remedy| hints::of(&remedy));
    Failure::new(Exit::Usage, error).with_hint_if(hint)
}

/// An operator's directory that cannot be used.
pub(super) fn directory(error: DirectoryError) -> Failure {
    serve(ServeError::Directory(error))
}

/// An act that needs two operators, or a proposal that is not taken.
pub(super) fn operators(error: OperatorsError) -> Failure {
    let hint = error.remedy().map(|remedy| hints::of(&remedy));
    Failure::new(operators_exit(&error), error).with_hint_if(hint)
}

fn operators_exit(error: &OperatorsError) -> Exit {
    match error {
        OperatorsError::TwoNeeded { .. }
        | OperatorsError::PlanNotQueued
        | OperatorsError::Stranger { .. }
        | OperatorsError::SameOperator { .. } => Exit::Identity,
        OperatorsError::NotApproved { .. }
        | OperatorsError::Proposal { .. }
        | OperatorsError::Decided { .. }
        | OperatorsError::Unreadable(_) => Exit::Integrity,
        OperatorsError::Operators => Exit::Usage,
        OperatorsError::NoRule => Exit::Configuration,
        OperatorsError::Expired { .. }
        | OperatorsError::Which { .. }
        | OperatorsError::Changed { .. }
        | OperatorsError::Directory(_) => Exit::Failed,
        OperatorsError::Key(error) => ca_exit(error),
        OperatorsError::Registry(error) => registry_exit(error),
    }
}

/// A record of a member that cannot be read or written.
pub(super) fn registry(error: RegistryError) -> Failure {
    let hint = error.remedy().map(|remedy| hints::of(&remedy));
    Failure::new(registry_exit(&error), error).with_hint_if(hint)
}

fn registry_exit(error: &RegistryError) -> Exit {
    match error {
        RegistryError::Joined { .. }
        | RegistryError::NotJoined { .. }
        | RegistryError::SameKeys { .. }
        | RegistryError::Used { .. } => Exit::Identity,
        RegistryError::Roster(_) => Exit::Integrity,
        _ => Exit::Failed,
    }
}

/// A round that cannot be replayed, or evidence that cannot be checked.
pub(super) fn audit(error: AuditError) -> Failure {
    let hint = error.remedy().map(|remedy| hints::of(&remedy));
    Failure::new(audit_exit(&error), error).with_hint_if(hint)
}

fn audit_exit(error: &AuditError) -> Exit {
    match error {
        AuditError::Run(_)
        | AuditError::NotKept { .. }
        | AuditError::Io { .. }
        | AuditError::State(StateError::Io { .. })
        | AuditError::Record(_)
        | AuditError::NoResult { .. } => Exit::Failed,
        AuditError::Json { .. }
        | AuditError::Plan(_)
        | AuditError::Members { .. }
        | AuditError::Peft(_)
        | AuditError::State(_)
        | AuditError::Events { .. }
        | AuditError::Event { .. }
        | AuditError::Receipt { .. }
        | AuditError::OtherAdapter { .. }
        | AuditError::Adapter(_) => Exit::Integrity,
    }
}

/// A run that ended early.
pub(super) fn serve(error: ServeError) -> Failure {
    let hint = error.remedy().map(|remedy| hints::of(&remedy));
    Failure::new(serve_exit(&error), error).with_hint_if(hint)
}

/// The exit code of a run that ended early.
pub fn serve_exit(error: &ServeError) -> Exit {
    match error {
        ServeError::Directory(
            DirectoryError::Io { .. }
            | DirectoryError::Exists { .. }
            | DirectoryError::Served { .. },
        )
        | ServeError::Queue { .. } => Exit::Failed,
        ServeError::Directory(DirectoryError::IdentityKey { .. }) => Exit::Identity,
        ServeError::Directory(DirectoryError::Ca(error)) | ServeError::Ca(error) => ca_exit(error),
        ServeError::Directory(DirectoryError::Store(error)) | ServeError::Store(error) => {
            store_exit(error)
        }
        ServeError::Directory(_) | ServeError::Plan(_) => Exit::Configuration,
        ServeError::Operators(error) => operators_exit(error),
        ServeError::Start(error) => start_exit(error),
        ServeError::Transport(_) => Exit::Network,
        ServeError::OpenRun(error) => audit_exit(error),
        ServeError::Run(failure) => run_exit(failure),
    }
}

/// A key of the authority that cannot be used.
pub(super) fn ca(error: CaError) -> Failure {
    serve(ServeError::Ca(error))
}

/// Certificates that wait, and cannot be signed.
pub(super) fn sign(error: SignError) -> Failure {
    match error {
        SignError::Ca(error) => ca(error),
        SignError::Registry(error) => registry(error),
    }
}

fn ca_exit(error: &CaError) -> Exit {
    match error {
        CaError::Carried(error) => carried_exit(error),
        CaError::Locked
        | CaError::Apart
        | CaError::NoServerCertificate
        | CaError::WrongPassphrase { .. }
        | CaError::AlreadySealed { .. }
        | CaError::NotSealed { .. }
        | CaError::Pki(_) => Exit::Identity,
        CaError::Token(error) => match error {
            TokenError::NotBuilt => Exit::Configuration,
            // A token that is away comes back, and a service manager may try again. It must not do so
            // with a PIN that is wrong.
            TokenError::Module { .. } | TokenError::NoToken { .. } | TokenError::Refused { .. } => {
                Exit::Failed
            }
            TokenError::Keys { .. }
            | TokenError::Curve { .. }
            | TokenError::Pin { .. }
            | TokenError::Locked { .. }
            | TokenError::PinFile(_) => Exit::Identity,
        },
        CaError::Passphrase(_) => Exit::Configuration,
        CaError::Request { .. } => Exit::Integrity,
        CaError::Io { .. } => Exit::Failed,
    }
}

fn carried_exit(error: &CarriedError) -> Exit {
    match error {
        CarriedError::Malformed { .. } | CarriedError::Signature { .. } => Exit::Integrity,
        CarriedError::OtherAuthority { .. }
        | CarriedError::Refused { .. }
        | CarriedError::NeverIssued { .. }
        | CarriedError::NothingSigned => Exit::Identity,
        CarriedError::Taken { .. } => Exit::Failed,
        CarriedError::NoFolder { .. } => Exit::Configuration,
    }
}

/// The exit code of an adapter that no run can begin from.
pub(super) fn start_exit(error: &StartError) -> Exit {
    match error {
        StartError::Unreadable { .. } | StartError::Files(_) | StartError::OtherAdapter { .. } => {
            Exit::Integrity
        }
        StartError::Io { .. } => Exit::Failed,
        StartError::None { .. }
        | StartError::Several { .. }
        | StartError::Queued { .. }
        | StartError::NotOver { .. }
        | StartError::SummedUpon { .. }
        | StartError::Shape { .. }
        | StartError::Base { .. }
        | StartError::Removed { .. } => Exit::Configuration,
    }
}

fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::NotBuilt
        | StoreError::Incomplete { .. }
        | StoreError::None { .. }
        | StoreError::Address { .. }
        | StoreError::NotImported { .. } => Exit::Configuration,
        StoreError::OtherFederation { .. } => Exit::Identity,
        StoreError::SetBack { .. } => Exit::Integrity,
        StoreError::Away { .. } => Exit::Network,
        StoreError::Refused { .. }
        | StoreError::Held { .. }
        | StoreError::Lost { .. }
        | StoreError::Imported
        | StoreError::Io { .. }
        | StoreError::Ended => Exit::Failed,
    }
}

fn run_exit(failure: &RunFailure) -> Exit {
    match failure {
        RunFailure::Away { .. }
        | RunFailure::Members(_)
        | RunFailure::Consent { .. }
        | RunFailure::NotRecorded { .. }
        | RunFailure::Roster(_) => Exit::Quorum,
        RunFailure::Round { reason, .. } => match reason {
            RoundFailure::Quorum { .. }
            | RoundFailure::Beacon { .. }
            | RoundFailure::Groups { .. } => Exit::Quorum,
            RoundFailure::Recovery | RoundFailure::Deal { .. } | RoundFailure::Sum => {
                Exit::Integrity
            }
            RoundFailure::Storage => Exit::Failed,
        },
        RunFailure::Publish(_) | RunFailure::Audit(_) | RunFailure::Registry(_) => Exit::Failed,
        RunFailure::TakeUp(error) => audit_exit(error),
        RunFailure::Stopped => Exit::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_one_above_is_a_usage_error_with_a_hint() {
        let failure = address(ConfigError::NoPortAbove);
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(
            failure
                .hint()
                .is_some_and(|hint| hint.contains("--join-listen"))
        );
    }
}
