//! What sessions tell the engine, and what the engine tells whoever watches the run.

use std::path::PathBuf;
use std::sync::Arc;

use fedlora_adapter::Adapter;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::RoundSum;
use fedlora_protocol::ids::{Attempt, MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::round::coordinator::{Fault, Reject};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{
    PhaseName, RoundFailure, RoundResult, ToAggregator, ToMember, UpdateClaim,
};
use fedlora_transport::TransportKind;
use tokio::sync::{mpsc, oneshot};

use super::refusal::UploadRefusal;

/// One connection of a member; a newer one of the same member replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What sessions tell the engine. `member` is the name in the connection's verified certificate.
#[derive(Debug)]
pub enum ToEngine {
    /// A member's control stream is open.
    Connected {
        /// The member's name.
        member: MemberName,
        /// The connection.
        session: SessionId,
        /// Takes control messages to the member; closed when a newer connection takes over.
        outbox: mpsc::UnboundedSender<ToMember>,
        /// What the connection tells of the member.
        about: About,
    },
    /// A connection broke.
    Disconnected {
        /// The member's name.
        member: MemberName,
        /// The connection that broke, which a newer one may have replaced.
        session: SessionId,
        /// Why the member does not take part, where it said so as it closed the connection.
        said: Option<String>,
    },
    /// A member sent a control message.
    Message {
        /// The member's name.
        member: MemberName,
        /// The message, decoded and not yet judged.
        message: Box<ToAggregator>,
    },
    /// A member wants to upload its masked update.
    UploadBegins {
        /// The member's name.
        member: MemberName,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// The packed vector's length in bytes, as claimed.
        length: u64,
        /// Gets the file to store it in, or the refusal.
        reply: oneshot::Sender<Result<PathBuf, UploadRefusal>>,
    },
    /// A masked update is stored durably.
    Uploaded {
        /// The member's name.
        member: MemberName,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// Its signed digest; the transfer checked that the bytes have it.
        claim: Unverified<UpdateClaim>,
        /// Hears whether the round took it.
        reply: oneshot::Sender<Result<(), UploadRefusal>>,
    },
    /// Bytes of a transfer moved. Nothing follows from it but the time that the member gets.
    Moved {
        /// The member's name.
        member: MemberName,
        /// How many, and of what.
        moved: Moved,
    },
    /// The aggregator shows a certificate.
    OwnCertificate {
        /// When it ends.
        end: Timestamp,
    },
    /// A member asks for an adapter's values.
    FetchAdapter {
        /// The adapter's digest.
        adapter: Digest,
        /// Gets the adapter; nothing where it is not the newest.
        reply: oneshot::Sender<Option<Arc<Adapter>>>,
    },
}

/// What a connection tells of its member.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The version of the protocol that both speak on it.
    pub protocol: u16,
    /// The release of its program, as its hello says: printable, at most 40 characters.
    pub release: String,
    /// When the certificate that it showed ends.
    pub certificate_end: Timestamp,
    /// What it runs over.
    pub transport: Option<TransportKind>,
}

/// Bytes that moved since the last such word of the same transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// Bytes of a masked update that came in.
    Update(u64),
    /// Bytes of an adapter that went out.
    Adapter(u64),
}

/// What the engine tells whoever watches the run.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "few in a round, and each is consumed at once"
)]
pub enum RunEvent {
    /// A member is ready.
    MemberReady {
        /// The member's name.
        member: MemberName,
        /// Members that are ready, this one included.
        ready: usize,
        /// Members that the plan asks for.
        needed: usize,
    },
    /// A round is opened.
    RoundOpened {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt at it, from 1.
        attempt: Attempt,
    },
    /// A phase of the current round begins.
    Phase {
        /// The current round.
        round: RoundNumber,
        /// The phase that begins.
        phase: PhaseName,
    },
    /// A round is done.
    RoundDone {
        /// The result, as it was signed.
        result: RoundResult,
        /// The unmasked sums: what the aggregator learned, and all it learned.
        sum: Arc<RoundSum>,
        /// The folder of the published adapter.
        folder: PathBuf,
    },
    /// An attempt at a round failed.
    RoundFailed {
        /// The round's number.
        round: RoundNumber,
        /// The attempt that failed.
        attempt: Attempt,
        /// Why it failed.
        reason: RoundFailure,
    },
    /// A member broke the protocol; the round goes on where it can.
    Blamed {
        /// What it did.
        fault: Box<Fault>,
    },
    /// A member's message was not taken. The round continues.
    Rejected {
        /// The sender.
        member: MemberIndex,
        /// What was wrong with the message.
        reason: Reject,
    },
}
