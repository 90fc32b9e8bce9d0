//! Which exit code each error ends the program with, and the failures made of them.

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_hub::HubError;
use fedlora_protocol::plan::PlanError;
use fedlora_protocol::round::member::MemberError;
use fedlora_shell::Failure;
use fedlora_train::{
    CheckpointError, OutputError, RunError, TrainError, TrainOption, TrainOptionsError,
};
use fedlora_transport::TransportError;

use super::hints;
use crate::base::BaseError;
use crate::directory::DirectoryError;
use crate::enrol::JoinError;
use crate::federation::{LinkError, ParticipantError};
use crate::receipts::ReceiptsError;
use crate::remedy::Remedy;
use crate::update::UpdateError;

/// Data, model or device that cannot be used.
pub(super) fn data(error: impl Into<anyhow::Error>) -> Failure {
    failure(Exit::Data, error)
}

/// A command line that cannot be followed.
pub(super) fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Usage, error)
}

/// A base model that cannot be had.
pub(super) fn base(error: BaseError) -> Failure {
    Failure::new(base_exit(&error), error)
}

/// An invitation that cannot be redeemed.
pub(super) fn join(error: JoinError) -> Failure {
    let exit = match &error {
        JoinError::Transport(
            TransportError::ServerCertificate(_) | TransportError::Refused { .. },
        ) => Exit::Identity,
        JoinError::Transport(_) => Exit::Network,
        JoinError::Directory(error) => directory_exit(error),
        JoinError::Expired { .. }
        | JoinError::Refused { .. }
        | JoinError::OtherCertificate { .. }
        | JoinError::Pki(_)
        | JoinError::Codec(_) => Exit::Identity,
    };
    failure(exit, error)
}

/// A member's directory that cannot be used.
pub(super) fn directory(error: DirectoryError) -> Failure {
    failure(directory_exit(&error), error)
}

/// A member that left its run.
pub(super) fn participant(error: ParticipantError) -> Failure {
    failure(participant_exit(&error), error)
}

/// A member that was not shown a roster yet.
pub(super) fn no_roster() -> Failure {
    let error = anyhow!("the aggregator has not shown this member a roster yet");
    Failure::new(Exit::Failed, error).with_hint_if(Some(hints::member(&Remedy::RunOnce)))
}

/// A folder that training cannot write to.
pub(super) fn output(error: OutputError) -> Failure {
    let exit = match error {
        OutputError::Busy { .. }
        | OutputError::Io { .. }
        | OutputError::Checkpoint(_)
        | OutputError::File(_) => Exit::Failed,
        OutputError::NoFolder { .. }
        | OutputError::Foreign { .. }
        | OutputError::Unknown { .. }
        | OutputError::Finished { .. }
        | OutputError::Other { .. } => Exit::Configuration,
    };
    failure(exit, error)
}

/// Training that ended early.
pub(super) fn training(error: RunError) -> Failure {
    let exit = match error {
        RunError::Output(error) => return output(error),
        RunError::Train(TrainError::Options(error)) => return option(error),
        RunError::Train(error) => return data(error),
        RunError::OtherCheckpoint { .. } => Exit::Configuration,
        RunError::Checkpoint(CheckpointError::AllDamaged { .. }) => Exit::Integrity,
        RunError::Checkpoint(_) | RunError::Metrics(_) | RunError::Peft(_) => Exit::Failed,
    };
    failure(exit, error)
}

/// A training option out of its range, under its name on the command line.
pub(super) fn option(error: TrainOptionsError) -> Failure {
    let TrainOptionsError {
        option,
        got,
        expected,
    } = error;
    let option = match option {
        TrainOption::BatchSize => "--batch",
        TrainOption::Accumulation => "--accumulate",
        TrainOption::MaxTokens => "--seq",
        TrainOption::Steps | TrainOption::ScheduleSteps => "--steps",
        TrainOption::Epochs => "--epochs",
        TrainOption::LearningRate => "--lr",
        TrainOption::RateRatio => "--loraplus-lr-ratio",
        TrainOption::WarmupShare => "--warmup",
        TrainOption::WeightDecay => "--weight-decay",
        TrainOption::ClipNorm => "--clip",
        // Of a federation's plan alone.
        TrainOption::Proximal => "training.proximal",
    };
    usage(anyhow!("{option} is {got}: give {expected}"))
}

/// The exit code of a member that left its run.
pub fn participant_exit(error: &ParticipantError) -> Exit {
    use ParticipantError as E;
    match error {
        E::Member(error) => member_exit(error),
        E::OtherRun { .. } | E::UnknownStart { .. } => Exit::Configuration,
        E::Start { .. } => Exit::Data,
        E::Update(UpdateError::Train(TrainError::Options(_))) => Exit::Configuration,
        E::Update(UpdateError::Panicked) => Exit::Failed,
        E::Update(_) => Exit::Data,
        // One side's certificate is refused by the other.
        E::Link(LinkError::Transport(
            TransportError::CertificateRefused { .. }
            | TransportError::ServerCertificate(_)
            | TransportError::Refused { .. }
            | TransportError::Replaced,
        )) => Exit::Identity,
        E::Link(_) => Exit::Network,
        E::Receipts(ReceiptsError::Io { .. }) => Exit::Failed,
        E::Receipts(_) => Exit::Integrity,
    }
}

fn member_exit(error: &MemberError) -> Exit {
    match error {
        MemberError::Plan(PlanError::Signature(_))
        | MemberError::Pin(_)
        | MemberError::OtherRoster { .. }
        | MemberError::RosterSize { .. }
        | MemberError::OtherRun
        | MemberError::NotOnRoster
        | MemberError::Refusal(_)
        | MemberError::OtherAdapter { .. }
        | MemberError::OtherStart { .. }
        | MemberError::EndedEarly { .. }
        | MemberError::ResultMissing { .. } => Exit::Integrity,
        MemberError::Plan(_) | MemberError::Floor(_) | MemberError::WeightClass { .. } => {
            Exit::Configuration
        }
        MemberError::Refused { .. } => Exit::Identity,
        MemberError::Failed { .. } | MemberError::NoResult => Exit::Quorum,
        MemberError::Adapter(_) => Exit::Data,
    }
}

/// An error with its exit code, and with the hint that belongs to it.
fn failure(exit: Exit, error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    let hint = hints::of(&error);
    Failure::new(exit, error).with_hint_if(hint)
}

/// The exit code of a base model that cannot be had.
pub fn base_exit(error: &BaseError) -> Exit {
    match error {
        BaseError::Hub(error) => hub_exit(error),
        BaseError::Missing { .. }
        | BaseError::NoPath { .. }
        | BaseError::NotABase { .. }
        | BaseError::Io { .. } => Exit::Data,
    }
}

fn hub_exit(error: &HubError) -> Exit {
    match error {
        HubError::Endpoint { .. }
        | HubError::Token { .. }
        | HubError::TokenFile { .. }
        | HubError::NoHome => Exit::Configuration,
        HubError::Network { .. } | HubError::Status { .. } => Exit::Network,
        HubError::Gated { .. } | HubError::Unauthorized { .. } => Exit::Identity,
        HubError::NoRepo { .. }
        | HubError::NoRevision { .. }
        | HubError::NoFile { .. }
        | HubError::NoWeights { .. }
        | HubError::WhichGguf { .. }
        | HubError::Offline { .. } => Exit::Data,
        HubError::Path { .. }
        | HubError::Redirect { .. }
        | HubError::Protocol { .. }
        | HubError::Hash { .. } => Exit::Integrity,
        HubError::DiskFull { .. } | HubError::Io { .. } | HubError::Setup(_) => Exit::Failed,
    }
}

fn directory_exit(error: &DirectoryError) -> Exit {
    match error {
        DirectoryError::Joined { .. }
        | DirectoryError::NotJoined { .. }
        | DirectoryError::Config { .. } => Exit::Configuration,
        DirectoryError::IdentityKey { .. } | DirectoryError::Pki(_) => Exit::Identity,
        DirectoryError::LedgerLost { .. } => Exit::Integrity,
        DirectoryError::Io { .. } | DirectoryError::InUse { .. } => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fedlora_adapter::{LoraConfig, Target};
    use fedlora_model::{ActivationCheckpointing, LlamaConfig, WeightKind};
    use fedlora_protocol::plan::{FloorBreach, FloorValue};
    use fedlora_train::{Device, MemoryPlan, Workload};

    use super::*;

    #[test]
    fn errors_of_the_hub_end_with_the_code_of_their_kind() {
        let (repo, token) = (|| "o/n".to_owned(), false);
        for (error, exit) in [
            (
                HubError::Gated {
                    repo: repo(),
                    token,
                },
                Exit::Identity,
            ),
            (
                HubError::Unauthorized {
                    repo: repo(),
                    token,
                },
                Exit::Identity,
            ),
            (
                HubError::NoRepo {
                    repo: repo(),
                    token,
                },
                Exit::Data,
            ),
            (
                HubError::NoRevision {
                    repo: repo(),
                    revision: repo(),
                },
                Exit::Data,
            ),
            (
                HubError::Status {
                    host: repo(),
                    status: 503,
                },
                Exit::Network,
            ),
            (HubError::Path { path: repo() }, Exit::Integrity),
            (HubError::Hash { file: repo() }, Exit::Integrity),
        ] {
            let failure = base(BaseError::Hub(error));
            assert_eq!(failure.exit(), exit, "{failure}");
        }
        let missing = crate::base::Base::open("./nowhere").expect_err("no base");
        assert_eq!(base(missing).exit(), Exit::Data);
    }

    #[test]
    fn a_hint_is_found_in_whichever_error_holds_it() {
        let path = std::path::PathBuf::from("there");
        let joined = DirectoryError::Joined { path };
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/assets/base");
        let config = LlamaConfig::load(&base).expect("a configuration");
        let lora = LoraConfig::new(8, 16.0, 0.0, Target::ALL).expect("a shape");
        let plan = MemoryPlan {
            config: &config,
            device: Device::Cpu,
            workload: Workload::of(&lora, Device::Cpu, WeightKind::F32),
            batch: None,
            kind: WeightKind::F32,
            checkpointing: ActivationCheckpointing::Off,
        };
        let too_large = plan.check(1).expect_err("a byte is not enough");
        let breach = FloorBreach {
            floor: "rank",
            got: FloorValue::Number(64.0),
            own: FloorValue::Number(16.0),
        };
        for (failure, words) in [
            (join(JoinError::Directory(joined)), "--dir"),
            (
                participant(ParticipantError::Member(breach.into())),
                "change floors.rank in fedlora.toml to admit 64, or ask the operator",
            ),
            (data(too_large.clone()), "--ignore-memory"),
            (
                participant(ParticipantError::Update(too_large.into())),
                "--ignore-memory",
            ),
        ] {
            assert!(
                failure.hint().is_some_and(|hint| hint.contains(words)),
                "{failure}"
            );
        }
    }
}
