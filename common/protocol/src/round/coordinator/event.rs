//! What goes in and out of the coordinator: inputs, the events that they become, and effects.

use serde::{Deserialize, Serialize};

use crate::crypto::sign::Signature;
use crate::fixed::{CohortWeight, GroupSum, RobustRule, RoundSum, SumParts};
use crate::ids::{GroupIndex, MemberIndex, MemberSet};
use crate::secagg::{RunningSums, Unmasking};
use crate::wire::Unverified;
use crate::wire::messages::{
    BeaconOpening, Deal, Keys, OpenTag, Reveal, RoundFailure, RoundMessage, ToMember, UpdateClaim,
};
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;

use super::fault::Fault;

/// An input of the coordinator.
#[derive(Debug)]
pub enum Input {
    /// A member's message on its control stream.
    Message {
        /// The sender, known from its certificate.
        from: MemberIndex,
        /// The M0 that it answers.
        open: OpenTag,
        /// The member's message.
        message: RoundMessage,
    },
    /// A member's masked update is stored durably.
    Uploaded {
        /// The member that uploaded it.
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
    /// Time has passed; the phase may be due.
    Tick,
}

/// An accepted input. The shell makes it durable before applying it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The time at which the input was accepted.
    pub at: Timestamp,
    /// The accepted input.
    pub kind: EventKind,
}

/// The kinds of accepted inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// A member's commitment to its part of the beacon was accepted.
    Committed(MemberIndex, Digest),
    /// A member's keys (M1) were accepted, with its opened part of the beacon.
    KeysTaken(Unverified<Keys>, Option<BeaconOpening>),
    /// What a member dealt (M2) was accepted.
    SharesTaken(Unverified<Deal>),
    /// What a holder said of whose shares it has (M2) was accepted.
    HeldTaken(MemberIndex, MemberSet, Signature),
    /// A member's masked update (M3) was accepted.
    UpdateTaken(Unverified<UpdateClaim>),
    /// A signature on the survivor list was accepted.
    Confirmed(MemberIndex, Signature),
    /// A member's revealed shares (M5) were accepted.
    Revealed(Unverified<Reveal>),
    /// A member takes no further part in this round.
    Left(MemberIndex),
    /// The phase's deadline has passed.
    TimeUp,
}

/// What the coordinator asks of its shell.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "few at a time, and each is consumed at once"
)]
pub enum CoordinatorEffect {
    /// Send a message to a member.
    Send(MemberIndex, ToMember),
    /// Add a stored update to the running sum of its member's group. The member is in the round's
    /// sums from here on, unless its group comes to be too small for one.
    Accumulate(MemberIndex, GroupIndex),
    /// Tell the operator of a member's fault.
    Blame(Fault),
    /// Remove the masks from the sum: the round is done.
    Unmask(Box<Completed>),
    /// The attempt failed.
    Fail(RoundFailure),
}

/// A round whose masks are recovered.
#[derive(Debug)]
pub struct Completed {
    /// The groups that have a sum, ascending: one where all are in one sum.
    pub groups: Vec<CompletedGroup>,
    /// The rule that combines their means; `None` where all are in one sum.
    pub rule: Option<RobustRule>,
    /// The members in the sums, ascending.
    pub survivors: Vec<MemberIndex>,
    /// All other members of the roster, ascending.
    pub dropped: Vec<MemberIndex>,
    /// The digest of keys and survivor list.
    pub transcript: Digest,
}

impl Completed {
    /// Removes the masks from the groups' running sums. The sums of other groups are dropped.
    pub fn unmask(
        groups: Vec<CompletedGroup>,
        rule: Option<RobustRule>,
        mut sums: RunningSums,
    ) -> RoundSum {
        let unmask = |one: CompletedGroup| GroupSum {
            group: one.group,
            sum: sums.take(one.group).unmask(one.unmasking),
            cohort: one.cohort,
            parts: one.parts,
        };
        RoundSum::new(groups.into_iter().map(unmask).collect(), rule)
    }
}

/// A group whose masks are recovered.
#[derive(Debug)]
pub struct CompletedGroup {
    /// The group.
    pub group: GroupIndex,
    /// The masks to remove from its running sum.
    pub unmasking: Unmasking,
    /// Those of the group whose keys are in the round, for whom its fixed-point format is made.
    pub cohort: CohortWeight,
    /// How many and how heavy its survivors are.
    pub parts: SumParts,
}
