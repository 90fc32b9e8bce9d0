//! The one task that owns the run. Sessions send it what members say; it decides, stores,
//! and answers through each member's outbox. Steps 8 to 10 of the round.

mod cohort;
mod links;
mod round;
mod rounds;

use std::path::PathBuf;
use std::sync::Arc;

use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::RingSum;
use fedlora_protocol::ids::{Attempt, MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{
    PhaseName, RoundFailure, RoundResult, ToAggregator, ToMember, UpdateClaim,
};
use tokio::sync::{mpsc, oneshot};

pub use rounds::{Engine, EngineSetup, RunFailure};

/// One connection of a member; a newer one of the same member replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What sessions tell the engine.
#[derive(Debug)]
pub enum ToEngine {
    /// A member's control stream is open.
    Connected {
        /// Who.
        member: MemberName,
        /// Which connection.
        session: SessionId,
        /// Where to send what it is to be told.
        outbox: mpsc::UnboundedSender<ToMember>,
    },
    /// A connection broke.
    Disconnected {
        /// Who.
        member: MemberName,
        /// Which connection.
        session: SessionId,
    },
    /// A member sent a control message.
    Message {
        /// Who.
        member: MemberName,
        /// What.
        message: Box<ToAggregator>,
    },
    /// A member wants to upload its masked update.
    UploadBegins {
        /// Who.
        member: MemberName,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// The vector's length, as claimed.
        length: u64,
        /// Where to store it, or why not.
        reply: oneshot::Sender<Result<PathBuf, String>>,
    },
    /// A masked update is stored durably.
    Uploaded {
        /// Who.
        member: MemberName,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// Its signed digest; the transfer checked that the bytes have it.
        claim: Unverified<UpdateClaim>,
        /// Whether it is in.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A member asks for an adapter's values.
    FetchAdapter {
        /// The adapter's digest.
        adapter: Digest,
        /// Its f32 values, little-endian; none where it is not the newest.
        reply: oneshot::Sender<Option<Arc<Vec<u8>>>>,
    },
}

/// What the engine tells whoever watches the run.
#[derive(Debug, Clone)]
pub enum RunEvent {
    /// A member is ready.
    MemberReady {
        /// Who.
        member: MemberName,
        /// How many are.
        ready: usize,
        /// How many the plan asks for.
        needed: usize,
    },
    /// A round is opened.
    RoundOpened {
        /// Which.
        round: RoundNumber,
        /// Which try.
        attempt: Attempt,
    },
    /// A phase begins.
    Phase {
        /// Of which round.
        round: RoundNumber,
        /// Which.
        phase: PhaseName,
    },
    /// A round is done.
    RoundDone {
        /// What it came to.
        result: RoundResult,
        /// The unmasked sum: what the aggregator learned, and all it learned.
        sum: Arc<RingSum>,
        /// Where the adapter is published.
        folder: PathBuf,
    },
    /// A round failed.
    RoundFailed {
        /// Which.
        round: RoundNumber,
        /// Which try.
        attempt: Attempt,
        /// Why.
        reason: RoundFailure,
    },
    /// A member's message was not taken.
    Rejected {
        /// Whose.
        member: MemberIndex,
        /// Why.
        reason: String,
    },
}
