//! Why a run ends early for a member.

use fedlora_adapter::AdapterError;
use fedlora_common::digest::Digest;

use crate::ids::RoundNumber;
use crate::plan::{FloorBreach, PlanError};
use crate::remedy::Remedy;
use crate::round::participant::Refusal;

use super::pin::PinError;

/// Why a run ended early for this member, by the protocol's rules.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The plan is not signed by the aggregator, or is not a possible one.
    #[error("the run's plan: {0}")]
    Plan(#[from] PlanError),
    /// The plan does not meet this member's floors.
    #[error(transparent)]
    Floor(#[from] FloorBreach),
    /// This member has not accepted the roster, or the pin cannot be stored.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The plan weighs members by class, and this member has not agreed to show its own.
    #[error(
        "the plan weighs members by the class of their number of examples, which everybody then \
         sees; this member has not agreed to a class, and its data is of class {own}"
    )]
    WeightClass {
        /// The class that this member's number of training examples comes to.
        own: u8,
    },
    /// The aggregator showed another roster while the member was asked about one.
    #[error("the aggregator shows the roster {got} while roster {asked} waits for an answer")]
    OtherRoster {
        /// The digest of the roster that this member is asked about.
        asked: Digest,
        /// The digest of the roster that was shown since.
        got: Digest,
    },
    /// The roster is not as large as the plan says.
    #[error("the roster holds {got} members; the plan that this member accepted is for {planned}")]
    RosterSize {
        /// Members on the roster that was shown.
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
    /// This member is not on the roster, or with another key.
    #[error("the roster does not hold this member's name and keys")]
    NotOnRoster,
    /// The aggregator sent something that this member refuses for the whole run.
    #[error("refused to continue: {0}")]
    Refusal(Refusal),
    /// The aggregator refused this member.
    #[error("the aggregator refused: {reason}")]
    Refused {
        /// The aggregator's reason.
        reason: String,
    },
    /// The run failed for all its members.
    #[error("the run failed: {reason}")]
    Failed {
        /// The aggregator's reason.
        reason: String,
    },
    /// A fetched adapter is not the one that the result names.
    #[error("the fetched adapter has digest {got}; the signed result names {expected}")]
    OtherAdapter {
        /// The digest of what was fetched.
        got: Digest,
        /// The digest that the result names.
        expected: Digest,
    },
    /// The adapter to begin with is not the one that the plan names.
    #[error("the first adapter has digest {got}; the signed plan begins from {expected}")]
    OtherStart {
        /// The digest of what this member was given.
        got: Digest,
        /// The digest that the plan names.
        expected: Digest,
    },
    /// The aggregator ended the run without a failure, and neither the plan's last round nor its
    /// patience had been reached.
    #[error(
        "the aggregator ended the run after round {done} of {planned}; neither plan nor results \
         end it there"
    )]
    EndedEarly {
        /// The newest round with a checked result.
        done: u32,
        /// Rounds of the plan.
        planned: u32,
    },
    /// The aggregator does not hold the adapter that is the run's result, and this member missed it.
    #[error(
        "the run's result is the adapter of round {round}, which this member missed and the \
         aggregator does not hold"
    )]
    ResultMissing {
        /// The round that the adapter came of; 0 for the first adapter.
        round: RoundNumber,
    },
    /// The run ended without any result.
    #[error("the run ended before its first round was done")]
    NoResult,
    /// The adapter does not fit its layout.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl MemberError {
    /// What the member may do about it, where there is something.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Floor(breach) => Some(breach.remedy()),
            _ => None,
        }
    }
}
