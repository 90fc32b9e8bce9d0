//! What a member's own display is told.

use std::fmt;
use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, MemberName, RoundNumber, RunId};
use fedlora_transport::{Route, Traffic};

use crate::update::LocalReport;
use fedlora_train::Progress;

/// Something that happened at this member. It stays at this member.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// A session with the aggregator begins.
    Connected {
        /// The aggregator's host and port.
        address: String,
        /// What the session runs over.
        route: Route,
    },
    /// The connection broke, or could not be made; another attempt follows.
    Disconnected {
        /// Why it broke.
        reason: String,
    },
    /// The plan is accepted.
    Planned {
        /// The run's identifier.
        run: RunId,
        /// How many rounds the plan has.
        rounds: u32,
        /// Optimizer steps a round.
        steps: u32,
        /// Tokens at which examples are cut.
        max_tokens: u32,
        /// This member's examples that are cut there.
        cut: usize,
    },
    /// The roster is pinned.
    Roster {
        /// The members' names and identity fingerprints.
        members: Vec<(MemberName, Digest)>,
        /// The roster's digest.
        digest: Digest,
    },
    /// A round is opened.
    Opened {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt's number, from 1.
        attempt: Attempt,
    },
    /// An optimizer step is done.
    Training {
        /// The round's number, from 1.
        round: RoundNumber,
        /// Steps done and the loss so far.
        progress: Progress,
    },
    /// Training is done.
    Trained {
        /// The round's number, from 1.
        round: RoundNumber,
        /// Losses, norm of the delta and tokens.
        report: LocalReport,
    },
    /// The aggregator has stored this member's masked update.
    Uploaded {
        /// The round's number, from 1.
        round: RoundNumber,
    },
    /// An attempt at a round failed, or its part of it ended here.
    Abandoned {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt's number, from 1.
        attempt: Attempt,
        /// The aggregator's reason, with the members' names.
        reason: String,
    },
    /// This member waits for the aggregator, which waits for others.
    Waiting {
        /// How long so far.
        so_far: Duration,
        /// What for.
        what: Awaited,
    },
    /// The aggregator has heard of another process with this member's keys.
    CopySeen,
    /// This member left a round.
    Left {
        /// The round's number, from 1.
        round: RoundNumber,
        /// What this member refused, or could not do.
        reason: String,
    },
    /// A round is done.
    RoundDone(RoundReport),
}

/// What a member waits for, as far as the aggregator's messages tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// As many members as the plan asks for to be ready.
    Members {
        /// How many the plan asks for.
        needed: usize,
    },
    /// The members to accept the roster.
    Roster,
    /// The other members' part of the round, once this member has sent its own.
    Round {
        /// The round's number, from 1.
        round: RoundNumber,
    },
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members { needed } => {
                write!(
                    f,
                    "waiting for the other members: the plan asks for {needed}"
                )
            }
            Self::Roster => f.write_str("waiting for the other members to accept the roster"),
            Self::Round { round } => {
                write!(f, "waiting for the other members' part of round {round}")
            }
        }
    }
}

/// A round as one member saw it.
#[derive(Debug, Clone)]
pub struct RoundReport {
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// Members whose updates are in the sum.
    pub survivors: usize,
    /// Whether this member is one of them.
    pub took_part: bool,
    /// Whether the members' votes took the step before back.
    pub taken_back: bool,
    /// Bytes that this member sent and received in the round, all included.
    pub traffic: Traffic,
    /// How long each stage took.
    pub seconds: Vec<(Stage, Duration)>,
}

/// The stages of a round at a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Waiting for the machine, where it is shared.
    Wait,
    /// Held-out evaluation and local training.
    Train,
    /// Encoding the delta as ring integers, and masking them.
    Mask,
    /// Uploading the masked update, until the aggregator has stored it.
    Upload,
    /// From the upload to the result: others' uploads, confirmation, reveal, publication.
    Aggregate,
    /// Fetching the new adapter.
    Fetch,
}

impl Stage {
    /// The stage's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Train => "train",
            Self::Mask => "mask",
            Self::Upload => "upload",
            Self::Aggregate => "aggregate",
            Self::Fetch => "fetch",
        }
    }
}
