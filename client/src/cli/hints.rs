//! The sentence behind `hint:` for each remedy, with the flags that it names.
//!
//! Libraries say what is wrong and which remedy there is; only this table knows flags.

use std::error::Error;

use fedlora_data::{DataError, PrepareError, Remedy as DataRemedy, Warning};
use fedlora_hub::{HubError, Remedy as HubRemedy};
use fedlora_protocol::Remedy as PlanRemedy;
use fedlora_train::eval::{EvaluationError, LabelError, QuestionError};
use fedlora_train::{
    DeviceError, DoesNotFit, MemorySaving, ModelError, OutputError, Remedy as TrainRemedy, RunError,
};

use crate::base::BaseError;
use crate::directory::DirectoryError;
use crate::enrol::JoinError;
use crate::federation::ParticipantError;
use crate::remedy::Remedy;

/// The hint for an error, or for the nearest of its causes that has a remedy.
pub(super) fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let member_hint = member_remedy(cause).map(|remedy| member(&remedy));
        member_hint
            .or_else(|| plan_remedy(cause).map(plan))
            .or_else(|| train_remedy(cause).map(|remedy| train(&remedy)))
            .or_else(|| data_remedy(cause).map(data))
            .or_else(|| hub_remedy(cause).map(|remedy| hub(&remedy)))
    })
}

fn member_remedy(cause: &Cause) -> Option<Remedy> {
    known(cause, DirectoryError::remedy)
        .or_else(|| known(cause, JoinError::remedy))
        .or_else(|| known(cause, ParticipantError::remedy))
}

fn plan_remedy(cause: &Cause) -> Option<PlanRemedy> {
    known(cause, ParticipantError::plan_remedy)
}

fn train_remedy(cause: &Cause) -> Option<TrainRemedy> {
    known(cause, DeviceError::remedy)
        .or_else(|| known(cause, DoesNotFit::remedy))
        .or_else(|| known(cause, ModelError::remedy))
        .or_else(|| known(cause, OutputError::remedy))
        .or_else(|| known(cause, RunError::remedy))
        .or_else(|| known(cause, EvaluationError::remedy))
        .or_else(|| known(cause, LabelError::remedy))
        .or_else(|| known(cause, QuestionError::remedy))
        .or_else(|| known(cause, ParticipantError::training_remedy))
}

fn data_remedy(cause: &Cause) -> Option<DataRemedy> {
    known(cause, DataError::remedy).or_else(|| known(cause, PrepareError::remedy))
}

fn hub_remedy(cause: &Cause) -> Option<HubRemedy> {
    let of_base = |error: &BaseError| match error {
        BaseError::Hub(error) => error.remedy(),
        _ => None,
    };
    known(cause, HubError::remedy).or_else(|| known(cause, of_base))
}

type Cause = dyn Error + 'static;

/// The remedy of an error of type `E`.
fn known<E: Error + 'static, R>(cause: &Cause, remedy: impl FnOnce(&E) -> Option<R>) -> Option<R> {
    cause.downcast_ref().and_then(remedy)
}

/// The hint for a membership or a roster.
pub(in crate::cli) fn member(remedy: &Remedy) -> String {
    match remedy {
        Remedy::AcceptRoster { roster } => format!(
            "compare names, fingerprints and words with the other members ('fedlora roster' shows \
             them), then add --accept-roster {roster}"
        ),
        Remedy::OtherKeys => {
            "put the newest copy of the file back; where there is none, ask the operator for a token \
             for other keys and join with it into a new folder"
                .to_owned()
        }
        Remedy::EndCopies => {
            "end the other one, wherever it runs, and go on with the directory that took part last; \
             where it is none of yours, tell the operator at once, and ask for other keys \
             ('fedlora-aggregator re-key')"
                .to_owned()
        }
        Remedy::RunOnce => {
            "start 'fedlora run': once all members are ready, it shows the roster and \
             asks; or ask the operator for what 'fedlora-aggregator roster' prints"
                .to_owned()
        }
        Remedy::AgreeToClass { class } => format!(
            "add the line 'weight_class = {class}' to fedlora.toml, above [floors], or ask the \
             operator for a plan with equal weights"
        ),
        Remedy::AllowUnknownStart => {
            "make sure by other means that the adapter is a result of your federation, then set \
             'unknown_start = true' under [floors] in fedlora.toml; or ask the operator for a plan \
             without start_from"
                .to_owned()
        }
        Remedy::OtherDirectory { path } => {
            format!("use another --dir, or remove {}", path.display())
        }
        Remedy::JoinFirst { path } => {
            format!("run 'fedlora join TOKEN --dir {}' first", path.display())
        }
    }
}

/// The hint for a plan that a member does not accept.
fn plan(remedy: PlanRemedy) -> String {
    match remedy {
        PlanRemedy::RelaxFloor { floor, plan, .. } => format!(
            "change floors.{floor} in fedlora.toml to admit {plan}, or ask the operator for another \
             plan"
        ),
    }
}

/// The hint for records.
pub(in crate::cli) fn data(remedy: DataRemedy) -> String {
    match remedy {
        DataRemedy::ListProblems { unlisted: 0 } => {
            "mend them, or leave them out of a training with --bad-records skip".to_owned()
        }
        DataRemedy::ListProblems { unlisted } => format!(
            "run 'fedlora check', which lists the other {unlisted} lines too, or leave all of them \
             out of a training with --bad-records skip"
        ),
        DataRemedy::AllowMoreBad => {
            "mend them, or allow a larger share with --bad-limit PERCENT".to_owned()
        }
        DataRemedy::AllowDropped => "take the fields out of the records, use a base whose chat \
             template shows them, or leave out --strict"
            .to_owned(),
    }
}

/// A warning about records or a base, with the option that would help.
pub(in crate::cli) fn warning(warning: &Warning) -> String {
    match warning.kind {
        "no_end" => format!("{} (--end-texts ends them)", warning.text),
        _ => warning.text.clone(),
    }
}

/// The hint for a base that is fetched from the hub.
fn hub(remedy: &HubRemedy) -> String {
    match remedy {
        HubRemedy::NameCacheFolder => "set HF_HOME or HOME".to_owned(),
        HubRemedy::Retry => "run the same command again: it resumes".to_owned(),
        HubRemedy::SetToken => "set HF_TOKEN to a token that may read the model".to_owned(),
        HubRemedy::CheckToken => "check HF_TOKEN, or the token file in HF_HOME".to_owned(),
        HubRemedy::AcceptLicence { other_account } => {
            let of_which = if *other_account {
                " to a token of that account"
            } else {
                ""
            };
            format!("accept the licence on the model's page, then set HF_TOKEN{of_which}")
        }
        HubRemedy::NameFile { repo } => format!("name one of them as {repo}:FILE"),
        HubRemedy::OtherDisk => "free some space, or point HF_HOME to another disk".to_owned(),
    }
}

/// The hint for training, decoding and evaluation.
pub(in crate::cli) fn train(remedy: &TrainRemedy) -> String {
    match remedy {
        TrainRemedy::OtherOutputFolder => "use another --out, a new or an empty folder".to_owned(),
        TrainRemedy::OtherOutputFolderOrRestart => {
            "use another --out, or --restart to remove the finished run".to_owned()
        }
        TrainRemedy::SameSettingsOrRestart => {
            "give the options that the run began with, use another --out, or --restart to remove \
             the unfinished run"
                .to_owned()
        }
        TrainRemedy::Restart => "use --restart to begin anew".to_owned(),
        TrainRemedy::Resume => "run the same command again: it resumes".to_owned(),
        TrainRemedy::BuildWithCuda => "build with --features cuda, or use --device cpu".to_owned(),
        TrainRemedy::InstallCuda { part } => {
            format!("install the NVIDIA driver and CUDA's {part}, or use --device cpu")
        }
        TrainRemedy::OtherGpu => "choose a --device that 'nvidia-smi -L' lists".to_owned(),
        TrainRemedy::LessMemory {
            savings,
            shorter_examples,
        } => less_memory(savings, *shorter_examples),
        TrainRemedy::NameLabels => {
            "name the labels with --labels, at least two different ones".to_owned()
        }
        TrainRemedy::LossOnly => "use --task loss".to_owned(),
    }
}

fn less_memory(savings: &[MemorySaving], shorter_examples: bool) -> String {
    let mut ways: Vec<String> = savings
        .iter()
        .map(|saving| {
            let mut flags = Vec::new();
            if saving.activation_checkpointing {
                flags.push("--memory low".to_owned());
            }
            flags.extend(saving.base_kind.map(|kind| format!("--base-dtype {kind}")));
            flags.extend(saving.batch.map(|batch| format!("--batch {batch}")));
            format!(
                "{} (about {})",
                flags.join(" "),
                indicatif::HumanBytes(saving.needed)
            )
        })
        .collect();
    if shorter_examples {
        ways.push("a smaller --seq".to_owned());
    }
    ways.push("--ignore-memory to begin all the same".to_owned());
    format!("use {}", ways.join(", or "))
}
