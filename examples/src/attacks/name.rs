//! The attacks by name: who plays each, and how a command line chooses them.

use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::report::AttackReport;
use super::{differencing, lists};

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
            Self::SkippedRound
            | Self::SecondList
            | Self::SecondRun
            | Self::SecondProcess
            | Self::TwoLists
            | Self::BothShares => Attacker::Aggregator,
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
