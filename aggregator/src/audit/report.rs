//! What a replay found.

use std::fmt;
use std::sync::Arc;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber};
use fedlora_protocol::plan::Roster;
use fedlora_protocol::round::coordinator::Reject;
use fedlora_protocol::secagg::pack::PackError;
use fedlora_protocol::wire::messages::RoundFailure;
use serde::{Serialize, Serializer};

use super::events::EventFileError;
use crate::publish::PublishError;

/// What a replay of a round found, beside the round's signed result.
#[derive(Debug, Serialize)]
pub struct ReplayReport {
    /// The run's id in hex.
    pub run: String,
    /// The round that was replayed.
    pub round: RoundNumber,
    /// The attempt that the result is of.
    pub attempt: Attempt,
    /// The fingerprint of the key that signed plan and results. Who replays compares it with what
    /// the members know.
    pub aggregator: Digest,
    /// The digest of the roster whose members signed. To be compared likewise.
    pub roster: Digest,
    /// Members on the roster.
    pub members: usize,
    /// The members in the sum, as the replay has them.
    pub survivors: Vec<MemberIndex>,
    /// Events that were judged again and applied.
    pub events: usize,
    /// Signatures that were verified: of the plan, of the results so far, and in events.
    pub signatures: usize,
    /// Survivors, dropped members and the survivors' weight.
    pub participation: Comparison,
    /// The digest of keys and survivor list.
    pub transcript: Comparison,
    /// The digest of the unmasked sum.
    pub sum: Comparison,
    /// The two losses and the number of clipped updates, from the sum.
    pub losses: Comparison,
    /// The digest of the adapter that the sum gives.
    pub adapter: Comparison,
    /// What members did wrong, by the events.
    pub faults: Vec<String>,
    /// What is wrong with record or result.
    pub findings: Vec<Finding>,
    /// Whose indices the report has, for people.
    #[serde(skip)]
    pub names: Arc<Roster>,
}

impl ReplayReport {
    /// Whether nothing that is there differs from the result, or is wrong.
    pub fn matches(&self) -> bool {
        let differs = |one| matches!(one, Comparison::Differs);
        self.findings.is_empty() && !self.comparisons().into_iter().any(differs)
    }

    /// Whether everything was recomputed: no upload, adapter or state is missing.
    pub fn is_whole(&self) -> bool {
        let compared = |one| matches!(one, Comparison::Matches | Comparison::Differs);
        self.comparisons().into_iter().all(compared)
    }

    fn comparisons(&self) -> [Comparison; 5] {
        [
            self.participation,
            self.transcript,
            self.sum,
            self.losses,
            self.adapter,
        ]
    }
}

/// How what a replay came to compares with the signed result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Comparison {
    /// It is the same, bit for bit.
    #[serde(rename = "matches")]
    Matches,
    /// It is not the same.
    #[serde(rename = "differs")]
    Differs,
    /// It follows from the masked updates, which are not there.
    #[serde(rename = "uploads not kept")]
    UploadsNotKept,
    /// It follows from the adapter before, which is not there.
    #[serde(rename = "adapter not kept")]
    AdapterNotKept,
    /// It follows from the state of the server's optimizer before, which is not there.
    #[serde(rename = "server state not kept")]
    StateNotKept,
    /// The replay did not come so far; a finding says why.
    #[serde(rename = "not computed")]
    NotComputed,
}

impl Comparison {
    /// Matches where both are equal.
    pub(super) fn of(same: bool) -> Self {
        if same { Self::Matches } else { Self::Differs }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Matches => "matches",
            Self::Differs => "differs",
            Self::UploadsNotKept => "uploads not kept",
            Self::AdapterNotKept => "adapter not kept",
            Self::StateNotKept => "server state not kept",
            Self::NotComputed => "not computed",
        })
    }
}

/// Something that is wrong with a record, or with the result beside it. In JSON it is its sentence.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// The first adapter is not what plan and layout give.
    #[error("the first adapter is not what plan and layout give")]
    FirstAdapter,
    /// A result that the aggregator did not sign.
    #[error("the signature of the result of round {0} does not verify")]
    ResultSignature(RoundNumber),
    /// A result of another run or round, or after another result.
    #[error("the result of round {0} does not continue the chain of results")]
    Chain(RoundNumber),
    /// An M0 that plan, roster and earlier results do not give.
    #[error("M0 is not what plan, roster and earlier results give")]
    Opening,
    /// An event that cannot be read.
    #[error("event {number} cannot be read: {reason}")]
    Unreadable {
        /// The event's number, from 1.
        number: usize,
        /// What is wrong with it.
        reason: EventFileError,
    },
    /// An event that the coordinator refuses.
    #[error("event {number} is refused: {reason}")]
    Refused {
        /// The event's number, from 1.
        number: usize,
        /// What is wrong with it.
        reason: Reject,
    },
    /// An event that is not what its message gives.
    #[error("event {number} is not what its message gives")]
    Altered {
        /// The event's number, from 1.
        number: usize,
    },
    /// Events that end before the round does.
    #[error("the events end before the round does")]
    Unfinished,
    /// Events by which the attempt failed, though it has a result.
    #[error("by the events the attempt failed: {0}")]
    Failed(RoundFailure),
    /// An upload that is not there, though others are.
    #[error("the upload of member {0} is missing")]
    UploadMissing(MemberIndex),
    /// An upload that its member did not sign for.
    #[error("the upload of member {0} is not the one that it signed for")]
    UploadDigest(MemberIndex),
    /// An upload that is no vector of this round.
    #[error("the upload of member {member} cannot be added: {reason}")]
    Upload {
        /// The member.
        member: MemberIndex,
        /// What is wrong with it.
        reason: PackError,
    },
    /// A sum that honest updates cannot have.
    #[error("the sum gives no adapter: {0}")]
    Sum(PublishError),
    /// An adapter before the round that is not the one of M0.
    #[error("the adapter before the round is not the one of M0")]
    AdapterBefore,
    /// A state of the server's optimizer after the round that the round does not give. The replay
    /// of the next round starts from it.
    #[error("the kept state of the server optimizer is not what the round gives")]
    StateAfter,
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
