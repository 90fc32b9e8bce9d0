//! The envelopes of the control stream, one for each direction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::sign::Signature;
use crate::ids::{Attempt, MemberIndex, MemberSet, RoundNumber};
use crate::plan::{Roster, SignedPlan};
use fedlora_adapter::Layout;
use fedlora_common::digest::Digest;

use super::super::verified::Unverified;
use super::beacon::{BeaconOpening, Commitments};
use super::failure::RoundFailure;
use super::keys::{Keys, PeerKeys};
use super::open::{Open, OpenTag};
use super::result::RoundResult;
use super::reveal::RevealedShare;
use super::shares::{Deal, DealtShares};
use super::survivors::{Confirmations, SurvivorList};

/// From the aggregator to one member, on its control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToMember {
    /// The run that this aggregator serves.
    Plan(SignedPlan),
    /// The run's members, once all have joined.
    Roster(Roster),
    /// M0: an attempt at a round opens.
    Open(Open),
    /// The commitments that the beacon comes from, where the round has one.
    Commitments(Commitments),
    /// M1: the receiver's neighbours' keys, and who takes part.
    PeerKeys(PeerKeys),
    /// M2: what the neighbours dealt to this member, by dealer.
    PeerShares(BTreeMap<MemberIndex, DealtShares>),
    /// M2: the members whose shares enough holders have. Masks are among these.
    Dealers(MemberSet),
    /// M4: the survivor list to sign.
    Survivors {
        /// Who is in the sum.
        list: SurvivorList,
        /// The proof that the receiver's own vector is.
        proof: Vec<Digest>,
    },
    /// M4: as many of the survivors' signatures on the list as confirm it, and what the
    /// receiver's neighbours claimed.
    Confirmations(Confirmations),
    /// M6: the round's signed result.
    Result(Unverified<RoundResult>),
    /// The attempt failed: another follows, or the run ends.
    Abandoned {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt's number, from 1.
        attempt: Attempt,
        /// The reason that ended the attempt.
        reason: RoundFailure,
    },
    /// The run is over, with its last result or early.
    Finished {
        /// Why it ended early; `None` where all rounds are done.
        failure: Option<String>,
    },
    /// The member cannot take part.
    Refused {
        /// What the aggregator found, and what would help.
        reason: String,
    },
    /// Another process with this member's keys says that this connection has put it out: a copy of the
    /// member's directory may be in use. Sent from version 9 of the protocol on.
    CopySeen,
}

/// From a member to the aggregator, on its control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToAggregator {
    /// The member accepts the plan and is ready to train.
    Ready(Ready),
    /// A message within a round.
    Round {
        /// The M0 that it answers.
        open: OpenTag,
        /// The member's message.
        message: RoundMessage,
    },
    /// The member holds the result's adapter.
    Fetched {
        /// The adapter's digest.
        adapter: Digest,
    },
    /// The member has accepted the roster, and is ready for the rounds.
    Accepted {
        /// The roster's digest.
        roster: Digest,
        /// The M0 of the round that the member is in. One that was started again is in none: its
        /// keys went with the process.
        round: Option<OpenTag>,
    },
}

/// What a member says of itself before a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The digest of the base model's configuration and weights.
    pub base: Digest,
    /// The adapter's full layout on that base.
    pub layout: Layout,
    /// The digest of the first adapter, made from the plan's seed.
    pub adapter: Digest,
}

/// A member's messages within a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum RoundMessage {
    /// The commitment to the member's part of the beacon, where the round has one.
    Commit(Digest),
    /// M1: the member's signed keys.
    Keys {
        /// The keys.
        keys: Unverified<Keys>,
        /// Its opened nonce, where it is one of the beacon's contributors.
        opening: Option<BeaconOpening>,
    },
    /// M2: the member's signed deal.
    Shares(Unverified<Deal>),
    /// M2: whose shares the member holds.
    Held {
        /// The dealers whose shares opened, and are what they committed to.
        dealers: MemberSet,
        /// The signature of [`HeldShares`](super::HeldShares).
        signature: Signature,
    },
    /// The member is at work on its update.
    Working,
    /// M4: the member's signature on the survivor list.
    Confirm(Signature),
    /// M5: one share for each owner of a secret.
    Reveal {
        /// The shares, by owner.
        shares: BTreeMap<MemberIndex, RevealedShare>,
        /// The signature of [`Reveal`](super::Reveal).
        signature: Signature,
    },
    /// The member leaves this round; the others continue without waiting for it.
    Abstain,
}
