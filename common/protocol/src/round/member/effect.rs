//! What the machine asks of its shell.

use std::sync::Arc;

use fedlora_adapter::{Adapter, Factors, Layout};
use fedlora_common::digest::Digest;

use crate::fixed::RoundEncoding;
use crate::ids::{Attempt, RoundNumber, RunId};
use crate::plan::{Roster, RosterChange, RunEnd, RunPlan};
use crate::receipt::RunReceipt;
use crate::round::participant::Refusal;
use crate::secagg::MaskedUpdate;
use crate::wire::Unverified;
use crate::wire::messages::{RoundFailure, RoundResult, ToAggregator, UpdateClaim};

use super::error::MemberError;

/// One thing for the shell to do. Effects are carried out in the order given.
#[derive(Debug)]
pub enum MemberEffect {
    /// Send a message on the control stream.
    Send(ToAggregator),
    /// Make base digest and first adapter for an accepted plan, or fetch the adapter that it begins from,
    /// then call
    /// [`Member::prepared`](super::Member::prepared).
    Prepare {
        /// The run that the plan begins.
        run: RunId,
        /// The accepted plan, signature and floors checked.
        plan: Box<RunPlan>,
    },
    /// Train, then call [`Member::trained`](super::Member::trained). The result of
    /// an earlier training is no longer needed.
    Train(Box<RoundTask>),
    /// Encode the trained update with fresh randomness, then call
    /// [`Member::encoded`](super::Member::encoded).
    Encode {
        /// The round that the update was trained for.
        round: RoundNumber,
        /// The attempt that it is masked for.
        attempt: Attempt,
        /// How to encode it.
        encoding: RoundEncoding,
    },
    /// Upload a masked update. A repeated upload resumes.
    Upload(Upload),
    /// Fetch the values of a round's adapter, or of the run's result, then call [`Member::fetched`](super::Member::fetched).
    Fetch {
        /// The digest that the signed result names.
        adapter: Digest,
        /// How many f32 values the adapter has.
        values: usize,
    },
    /// Ask the member whether it accepts the roster, then call
    /// [`Member::accept_roster`](super::Member::accept_roster) or
    /// [`Member::decline_roster`](super::Member::decline_roster). The answer may take as long as
    /// the aggregator waits; messages are handed over meanwhile.
    AskConsent(Box<RosterQuestion>),
    /// Keep what the run begins with, to show it later. Comes again after each restart.
    KeepRun(Box<RunReceipt>),
    /// Keep a round's result, whose signature and place are checked, before anything follows from it.
    /// All of a run's come again after each restart.
    KeepResult(Box<Unverified<RoundResult>>),
    /// The roster is pinned, and lists this member.
    Pinned(Box<Roster>),
    /// This member takes part in an attempt at a round.
    Opened {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt's number, from 1.
        attempt: Attempt,
        /// The digest of the round's M0.
        open: Digest,
    },
    /// This member left the current round and wiped its keys.
    Left {
        /// The round's number, from 1.
        round: RoundNumber,
        /// Why this member left.
        reason: LeaveReason,
    },
    /// The aggregator abandoned an attempt. The trained update serves the next attempt.
    Abandoned {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt's number, from 1.
        attempt: Attempt,
        /// The aggregator's reason.
        reason: RoundFailure,
    },
    /// A round has a checked result, and its adapter is fetched or superseded.
    RoundDone(DoneRound),
    /// The run is over for this member.
    End(Result<Box<RunOutcome>, MemberError>),
}

/// What a round came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoneRound {
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// How many members are in the sum.
    pub survivors: usize,
    /// Whether this member is one of them.
    pub took_part: bool,
    /// Whether the members' votes took the step before back.
    pub taken_back: bool,
    /// The round's adapter, where this member holds it: it is what the result names, and its step is
    /// within what the plan allows.
    pub held: Option<Digest>,
}

/// A roster that the member has not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterQuestion {
    /// The roster that the aggregator shows.
    pub roster: Roster,
    /// How it differs from the pinned one; `None` where none is pinned.
    pub change: Option<RosterChange>,
}

/// Why a member left a round.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LeaveReason {
    /// A message of the round was refused.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The trained update does not fit the fixed-point format.
    #[error("the update cannot be encoded: {0}")]
    Encoding(crate::fixed::FixedError),
}

/// What a member makes of an accepted plan and its base model.
#[derive(Debug)]
pub struct Prepared {
    /// The digest of the base model's configuration and weights.
    pub base: Digest,
    /// The run's first adapter, which follows from the plan's seed or is the one that it begins from.
    pub adapter: Adapter,
}

/// What one round trains, as plan and M0 give it.
#[derive(Debug, Clone)]
pub struct RoundTask {
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// The factors that the round trains.
    pub factors: Factors,
    /// The largest L2 norm of the delta.
    pub clip: f32,
    /// The layout of those factors.
    pub part: Layout,
    /// The global adapter that training starts from.
    pub adapter: Adapter,
    /// What became of the rounds since the last task.
    pub since: Vec<RoundShare>,
}

/// What became of one member's change in a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundShare {
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// This member's part of the weight of the round's sum, above 0 and below 1, where it is in it.
    pub share: Option<f64>,
    /// Whether the step before was taken back in place of one by this sum.
    pub taken_back: bool,
}

/// A masked update with its signed claim, until the survivor list shows that it has arrived.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The digest of the round's M0.
    pub open: Digest,
    /// The packed masked vector.
    pub masked: Arc<MaskedUpdate>,
    /// Which vector it is, signed.
    pub claim: Unverified<UpdateClaim>,
}

/// A run that ended with at least one round done.
#[derive(Debug, Clone)]
pub struct RunOutcome {
    /// The identifier of the run.
    pub run: RunId,
    /// The run's plan.
    pub plan: RunPlan,
    /// The run's result: of its global adapters the one that
    /// [`LossCurve::best`](crate::plan::LossCurve::best) chooses.
    pub adapter: Adapter,
    /// Which one it is, after how many rounds.
    pub end: RunEnd,
    /// In how many of the rounds this member is in the sum.
    pub took_part: u32,
    /// The newest global adapter that this member holds: the result, or one that came after it.
    pub newest: Adapter,
    /// What became of the rounds since the last task.
    pub since: Vec<RoundShare>,
}
