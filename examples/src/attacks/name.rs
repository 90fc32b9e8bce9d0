//! The attacks by name: who plays each, and how a command line chooses them.

use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::report::AttackReport;
use super::{differencing, inference, lists, members, plans, restored, results, roster};

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttackName {
    /// After a round's reveal, a round far ahead on the same adapter, without the victim
    SkippedRound,
    /// After a round's reveal, a second sum on its adapter without the victim, in the same run
    SecondList,
    /// After a round's reveal, a second sum on its adapter without the victim, in another run
    SecondRun,
    /// Two sums on one adapter at once, with two processes on each member's directory
    SecondProcess,
    /// Two survivor lists in one round, each to half of the members
    TwoLists,
    /// A second survivor list to members that have revealed, for the other share of the victim
    BothShares,
    /// One result to half of the members and another to the others, or one that another key signed
    OtherResult,
    /// A result whose adapter differs in factors that the round did not train
    ChosenModelFrozen,
    /// A result whose adapter is further from the one before than the clip allows
    ChosenModelStep,
    /// A plan with one step on one example
    OneRecordPlan,
    /// A plan with a clip above the member's floor
    HugeClip,
    /// The victim's number of examples, from the weights of two ordinary rounds
    ExactCounts,
    /// The victim's loss, from the losses of two ordinary rounds
    LossDifferencing,
    /// The attacker's keys under the other members' names, to a member that has pinned theirs
    SwappedRoster,
    /// A replayed round, to a member whose log was restored from an older copy
    RestoredLedger,
    /// A weight class above the plan's highest
    ForgedWeight,
    /// Noise in place of the update
    PoisonedSum,
    /// Forged shares in the reveal
    ForgedShare,
    /// Garbage in place of sealed shares
    GarbageSeal,
}

/// Who plays an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attacker {
    /// The aggregator.
    Aggregator,
    /// One member.
    Member,
}

impl AttackName {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .expect("no variant is skipped")
            .get_name()
            .to_owned()
    }

    /// Who plays it.
    pub fn by(self) -> Attacker {
        match self {
            Self::ForgedWeight | Self::PoisonedSum | Self::ForgedShare | Self::GarbageSeal => {
                Attacker::Member
            }
            Self::SkippedRound
            | Self::SecondList
            | Self::SecondRun
            | Self::SecondProcess
            | Self::TwoLists
            | Self::BothShares
            | Self::OtherResult
            | Self::ChosenModelFrozen
            | Self::ChosenModelStep
            | Self::OneRecordPlan
            | Self::HugeClip
            | Self::ExactCounts
            | Self::LossDifferencing
            | Self::SwappedRoster
            | Self::RestoredLedger => Attacker::Aggregator,
        }
    }

    /// Plays the attack against a fresh federation.
    ///
    /// # Errors
    /// A federation that cannot be set up for it.
    pub fn play(self) -> anyhow::Result<AttackReport> {
        let attempt = match self {
            Self::SkippedRound => differencing::skipped_round(),
            Self::SecondList => differencing::second_list(),
            Self::SecondRun => differencing::second_run(),
            Self::SecondProcess => differencing::second_process(),
            Self::TwoLists => lists::two_lists(),
            Self::BothShares => lists::both_shares(),
            Self::OtherResult => results::other_result(),
            Self::ChosenModelFrozen => results::chosen_model_frozen(),
            Self::ChosenModelStep => results::chosen_model_step(),
            Self::OneRecordPlan => plans::one_record_plan(),
            Self::HugeClip => plans::huge_clip(),
            Self::ExactCounts => inference::exact_counts(),
            Self::LossDifferencing => inference::loss_differencing(),
            Self::SwappedRoster => roster::swapped_roster(),
            Self::RestoredLedger => restored::restored_ledger(),
            Self::ForgedWeight => members::forged_weight(),
            Self::PoisonedSum => members::poisoned_sum(),
            Self::ForgedShare => members::forged_share(),
            Self::GarbageSeal => members::garbage_seal(),
        };
        let attempt = attempt.with_context(|| format!("the attack {}", self.name()))?;
        Ok(AttackReport {
            name: self.name(),
            by: self.by(),
            tried: attempt.tried.to_owned(),
            answer: attempt.answer,
            held: attempt.held,
        })
    }
}

/// Parses an attack's name, or `all`.
pub fn selection() -> impl TypedValueParser<Value = Arc<[AttackName]>> {
    let names = AttackName::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value);
    let all = PossibleValue::new("all").help("Every attack, in this order");
    PossibleValuesParser::new(names.chain([all])).try_map(|text| match text.as_str() {
        "all" => Ok(AttackName::value_variants().into()),
        name => AttackName::from_str(name, false).map(|name| [name].into()),
    })
}
