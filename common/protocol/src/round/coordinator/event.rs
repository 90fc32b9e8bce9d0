//! What goes in and out of the coordinator: inputs, the events that they become, and effects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::MemberIndex;
use crate::secagg::Unmasking;
use crate::wire::Unverified;
use crate::wire::messages::{
    Confirmation, Keys, RevealedShare, RoundFailure, RoundMessage, SealedShares, ToMember,
    UpdateClaim,
};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

/// What reaches the coordinator.
#[derive(Debug)]
pub enum Input {
    /// A member's message.
    Message {
        /// From whom: known from its certificate.
        from: MemberIndex,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// The message.
        message: RoundMessage,
    },
    /// A member's masked update is stored durably.
    Uploaded {
        /// From whom.
        from: MemberIndex,
        /// The digest of the M0 that it answers.
        open: Digest,
        /// Its signed digest, equal to that of the stored bytes.
        claim: Unverified<UpdateClaim>,
    },
    /// A member's connection broke and it did not come back in time.
    Absent {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// Time has passed.
    Tick,
}

/// What happened: durable before it is applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// M1 was accepted.
    KeysTaken(Unverified<Keys>),
    /// M2 was accepted.
    SharesTaken(MemberIndex, BTreeMap<MemberIndex, SealedShares>),
    /// M3 was accepted.
    UpdateTaken(UpdateClaim),
    /// A signature on the survivor list was accepted.
    Confirmed(Unverified<Confirmation>),
    /// M5 was accepted.
    Revealed(MemberIndex, BTreeMap<MemberIndex, RevealedShare>),
    /// A member takes no further part in this round.
    Left(MemberIndex),
    /// The phase's time is up.
    TimeUp,
}

/// What the shell must do.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few at a time, and each is consumed at once"
)]
pub enum CoordinatorEffect {
    /// Send a message to a member.
    Send(MemberIndex, ToMember),
    /// Add a stored update to the running sum. Its member is in the sum from here on.
    Accumulate(MemberIndex),
    /// Take the masks off the sum: the round is done.
    Unmask(Box<Completed>),
    /// The round came to nothing.
    Fail(RoundFailure),
}

/// A round whose masks are recovered.
#[derive(Debug)]
pub struct Completed {
    /// The masks to take off the running sum.
    pub unmasking: Unmasking,
    /// Who is in the sum.
    pub survivors: Vec<MemberIndex>,
    /// Who is not.
    pub dropped: Vec<MemberIndex>,
    /// The digest of keys and survivor list.
    pub transcript: Digest,
}
