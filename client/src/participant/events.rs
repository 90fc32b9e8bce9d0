//! What a member's own display, and a simulation, are told.

use std::sync::Arc;
use std::time::Duration;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, MemberName, RoundNumber, RunId};
use fedlora_transport::Traffic;

use crate::update::LocalReport;
use fedlora_train::Progress;

/// Something that happened at this member. It stays at this member.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// Connected.
    Connected {
        /// Where to.
        address: String,
    },
    /// The connection broke.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The plan is accepted.
    Planned {
        /// The run.
        run: RunId,
        /// Its rounds.
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
        /// Which.
        round: RoundNumber,
        /// Which try.
        attempt: Attempt,
    },
    /// Training goes on.
    Training {
        /// In which round.
        round: RoundNumber,
        /// How far.
        progress: Progress,
    },
    /// Training is done.
    Trained {
        /// In which round.
        round: RoundNumber,
        /// The figures.
        report: LocalReport,
    },
    /// The update is encoded, before it is masked. Only sent to a watcher that asked for it,
    /// within the same process: a simulation that checks sums.
    Encoded {
        /// In which round.
        round: RoundNumber,
        /// Which try.
        attempt: Attempt,
        /// The ring lanes.
        lanes: Arc<Vec<u32>>,
    },
    /// This member left a round.
    Left {
        /// Which.
        round: RoundNumber,
        /// Why.
        reason: String,
    },
    /// A round is done.
    RoundDone(RoundReport),
}

/// A round as one member saw it.
#[derive(Debug, Clone)]
pub struct RoundReport {
    /// Which.
    pub round: RoundNumber,
    /// Members in the sum.
    pub survivors: usize,
    /// Whether this member is one of them.
    pub took_part: bool,
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
    /// Evaluation and training.
    Train,
    /// Encoding and masking.
    Mask,
    /// Upload.
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
