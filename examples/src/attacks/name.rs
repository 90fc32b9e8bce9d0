//! The attacks by name: who plays each, and how a command line chooses them.

use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::report::AttackReport;
use super::{
    differencing, inference, lists, members, plans, poisoning, restored, results, roster, silent,
};

/// An attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttackName {
    /// After the reveal, a round far ahead on its adapter, less the victim
    SkippedRound,
    /// After the reveal, a second sum on its adapter, less the victim
    SecondList,
    /// After the reveal, a sum on its adapter in another run
    SecondRun,
    /// Two sums on one adapter at once, in two processes of each member
    SecondProcess,
    /// Two survivor lists in one round, each to half of the members
    TwoLists,
    /// A second list after the reveal, for the victim's other share
    BothShares,
    /// Different results to the members, or one that another key signed
    OtherResult,
    /// A result whose adapter differs in untrained factors
    ChosenModelFrozen,
    /// A result that is further than the clip allows
    ChosenModelStep,
    /// A plan with one step on one example
    OneRecordPlan,
    /// A plan with a clip above the member's floor
    HugeClip,
    /// The victim's number of examples, from two ordinary rounds
    ExactCounts,
    /// The victim's loss, from two ordinary rounds
    LossDifferencing,
    /// The attacker's keys under the other members' names
    SwappedRoster,
    /// A replayed round, to a member with an older copy of its log
    RestoredLedger,
    /// A weight class above the plan's highest
    ForgedWeight,
    /// Noise in place of the update
    PoisonedSum,
    /// An update of the other sign as long as the clip, alone and against groups
    PoisonedUpdate,
    /// Forged shares in the reveal
    ForgedShare,
    /// Garbage in place of sealed shares
    GarbageSeal,
    /// Keys and shares, and never an update
    SilentMember,
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
            Self::ForgedWeight
            | Self::PoisonedSum
            | Self::PoisonedUpdate
            | Self::ForgedShare
            | Self::GarbageSeal
            | Self::SilentMember => Attacker::Member,
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
            Self::PoisonedUpdate => poisoning::poisoned_update(),
            Self::ForgedShare => members::forged_share(),
            Self::GarbageSeal => members::garbage_seal(),
            Self::SilentMember => silent::silent_member(),
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
