//! Every reason for which a member leaves a round.

use crate::crypto::shamir::ShamirError;
use crate::fixed::FixedError;
use crate::ids::{Attempt, GroupIndex, MemberIndex, RoundNumber};
use crate::secagg::{GraphError, MAX_ATTEMPTS, PolicyError};
use fedlora_adapter::AdapterError;
use fedlora_common::digest::Digest;

use super::ledger::LedgerError;

/// Why a member refuses a message. Each is an attack, or a fault that looks like one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Another suite of algorithms.
    #[error("the round is in suite {got}; this member speaks suite {own} only")]
    Suite {
        /// The suite that M0 names.
        got: u16,
        /// The suite of this member.
        own: u16,
    },
    /// Another run than the one joined.
    #[error("the round belongs to another run than the one that this member takes part in")]
    Run,
    /// The roster is not the one that was pinned.
    #[error(
        "the round's roster {got} is not the pinned one, {pinned}: someone joined, left or \
         changed keys without this member's consent"
    )]
    Roster {
        /// The digest that M0 names.
        got: Digest,
        /// The digest of the pinned roster.
        pinned: Digest,
    },
    /// The plan is not the one that was accepted.
    #[error("the round's plan {got} is not the accepted one, {accepted}")]
    Plan {
        /// The digest that M0 names.
        got: Digest,
        /// The digest of the accepted plan.
        accepted: Digest,
    },
    /// Not the round that follows the newest result, or none of the plan's.
    #[error(
        "round {got} does not follow: this member's chain of results leads to round {expected}, \
         and the plan ends with round {last}. A skipped round could give two sums on one adapter"
    )]
    Round {
        /// What M0 says.
        got: RoundNumber,
        /// The round after the newest checked result.
        expected: RoundNumber,
        /// The plan's last round.
        last: RoundNumber,
    },
    /// A round or result after the last one.
    #[error(
        "the run was over after round {last}, by its plan and its results; the aggregator goes on"
    )]
    Over {
        /// The last round.
        last: RoundNumber,
    },
    /// The round continues from another result than this member's chain ends with.
    #[error(
        "the round continues from result {got}; this member's chain of results ends with {own}: \
         the aggregator tells members different things"
    )]
    Previous {
        /// What M0 says.
        got: Digest,
        /// The head of this member's chain.
        own: Digest,
    },
    /// A peer weighs more than the plan allows.
    #[error("member {member} has weight class {got}; the plan allows {most} at most")]
    Weight {
        /// The peer's place in the roster.
        member: MemberIndex,
        /// Its class.
        got: u8,
        /// The plan's highest class.
        most: u8,
    },
    /// A peer has revealed shares for this round already, or for a later one.
    #[error(
        "member {member} revealed shares for round {revealed} before, and this is round {round}: \
         the aggregator replays it, or this member's log was restored from an older copy"
    )]
    RevealedBefore {
        /// The peer's place in the roster.
        member: MemberIndex,
        /// The newest round that the peer revealed shares for.
        revealed: RoundNumber,
        /// The round offered.
        round: RoundNumber,
    },
    /// The global adapter is not the one that this member holds.
    #[error("the round starts from adapter {got}; this member holds {own}")]
    Adapter {
        /// The digest that M0 names.
        got: Digest,
        /// The digest of the adapter that this member holds.
        own: Digest,
    },
    /// The layout, factors, clip, weight or bits are not what the plan gives for this round.
    #[error("the round's {what} differs from what the plan gives for round {round}")]
    Parameter {
        /// The field of M0 that differs.
        what: &'static str,
        /// The round's number, from 1.
        round: RoundNumber,
    },
    /// A threshold below the floor, or impossible.
    #[error("a threshold of {got}: this member insists on {floor} to {most}")]
    Threshold {
        /// The threshold of shares or signatures that M0 names.
        got: usize,
        /// The lowest that keeps secrets from colluding members, and two lists from both being
        /// confirmed.
        floor: usize,
        /// As many as there can be.
        most: usize,
    },
    /// An attempt beyond those that a member takes part in.
    #[error(
        "attempt {got} at round {round}: members take part in attempts 1 to {MAX_ATTEMPTS}, for \
         each draws neighbours anew"
    )]
    Attempt {
        /// The round's number, from 1.
        round: RoundNumber,
        /// The attempt that M0 names.
        got: Attempt,
    },
    /// The beacon has another number of contributors than one more than may collude.
    #[error("the beacon has {got} contributors: with {needed}, one of them is honest")]
    Contributors {
        /// The contributors named.
        got: usize,
        /// How many there must be.
        needed: usize,
    },
    /// This member's own commitment to the beacon was replaced.
    #[error("the commitments hold another one than this member's own")]
    OwnCommitment,
    /// A contributor's opening is missing, not signed, or not what it committed to.
    #[error("member {member}'s part of the beacon is missing, forged, or not what it committed to")]
    Beacon {
        /// The contributor.
        member: MemberIndex,
    },
    /// A cohort with another number of classes than members.
    #[error("the cohort has another number of weight classes than members")]
    Classes,
    /// A neighbour's keys are missing, or not what the cohort says of it.
    #[error("the keys of neighbour {member} are missing, or its weight class differs from theirs")]
    Cohort {
        /// The neighbour.
        member: MemberIndex,
    },
    /// Too few holders have this member's shares.
    #[error(
        "this member is left out: too few of its neighbours hold shares of its secrets that open"
    )]
    LeftOut,
    /// Masks with a neighbour that dealt this member nothing usable.
    #[error("masks are to be shared with member {member}, which dealt this member no share")]
    Undealt {
        /// The neighbour.
        member: MemberIndex,
    },
    /// No graph of neighbours comes of the round's numbers.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A minimum of contributors below the floor, or impossible.
    #[error(
        "a minimum of {got} contributors among {members} members: this member insists on \
         {floor} to {members}"
    )]
    Minimum {
        /// The minimum that M0 names.
        got: usize,
        /// The lowest that this member accepts.
        floor: usize,
        /// The roster's size.
        members: usize,
    },
    /// A cohort that secure aggregation cannot protect.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A round that was seen before, or after whose reveal nothing may follow.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A member that is not on the roster.
    #[error("the {message} name member {member}, who is not on the roster")]
    Stranger {
        /// The message that names it.
        message: &'static str,
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A member named twice, or out of order.
    #[error("the {message} name member {member} twice or out of order")]
    Repeated {
        /// The message that names it.
        message: &'static str,
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A signature that does not verify.
    #[error(
        "member {member}'s signature in the {message} does not verify: forged, or made for \
         another round, model or survivor list"
    )]
    Signature {
        /// The message that holds the signature.
        message: &'static str,
        /// The member whose signature it should be.
        member: MemberIndex,
    },
    /// This member is not in the cohort with its own weight.
    #[error("this member is missing from the cohort, or its weight class was changed")]
    OwnKeys,
    /// Two members with a key in common.
    #[error("member {member} has a key that another member of the round has too")]
    RepeatedKey {
        /// The member that comes second in the message.
        member: MemberIndex,
    },
    /// A key of small order, or not in canonical form.
    #[error(
        "member {member}'s key is of small order, so that what is agreed with it is known to \
         everybody, or not in canonical form"
    )]
    WeakKey {
        /// The member whose key it is.
        member: MemberIndex,
    },
    /// Fewer members than the round needs.
    #[error(
        "the {message} name {got} members, {needed} are needed: a sum of fewer could show one \
         member's update"
    )]
    TooFew {
        /// The message that names them.
        message: &'static str,
        /// Members that it names.
        got: usize,
        /// Members that it must name.
        needed: usize,
    },
    /// A survivor that this member made no pair mask with.
    #[error(
        "the survivor list names member {member}, who is not among those with masks in this round"
    )]
    UnknownSurvivor {
        /// The member's place in the roster.
        member: MemberIndex,
    },
    /// A survivor, one of whose shares this member holds, that has signed nothing of its masks.
    #[error(
        "member {member} is on the survivor list, and neither its signature on the list nor its \
         claim of whom it masked among is there: this member reveals no share of it"
    )]
    Unclaimed {
        /// The survivor's place in the roster.
        member: MemberIndex,
    },
    /// A survivor that masked among others than this member was told of.
    #[error(
        "member {member} did not sign that it masked among the members that this member was told \
         of: the aggregator tells members different things, so that the rest reveal all its masks"
    )]
    Dealers {
        /// The survivor's place in the roster.
        member: MemberIndex,
    },
    /// Survivors whose masks leave them in parts.
    #[error(
        "the survivor list leaves the members' masks in parts: each part's sum would show by \
         itself"
    )]
    Split,
    /// A group with survivors, and too few of them.
    #[error(
        "the survivor list has {got} members of group {group}, {needed} are needed: their sum \
         shows by itself, and could show one member's update"
    )]
    ThinGroup {
        /// The group.
        group: GroupIndex,
        /// Its members on the list.
        got: usize,
        /// The fewest in a sum.
        needed: usize,
    },
    /// A list of too few groups.
    #[error(
        "the survivor list has members of {got} groups, and the plan's rule takes {needed} to \
         withstand spoilt ones"
    )]
    FewGroups {
        /// Groups with members on the list.
        got: usize,
        /// The fewest that the rule takes.
        needed: usize,
    },
    /// The member's own update is missing from the survivor list, or replaced by another.
    #[error("the survivor list does not hold this member's own update")]
    OwnUpdate,
    /// A result that does not follow from this round.
    #[error("the result's {what} does not follow from this round")]
    Result {
        /// The field of the result that differs.
        what: &'static str,
    },
    /// A result that changes factors which its round did not train.
    #[error(
        "chosen-model attack: the new adapter differs from the old in factors that the round did \
         not train"
    )]
    FrozenFactors,
    /// A step back that does not lead where the step before came from.
    #[error(
        "chosen-model attack: the members' votes take the last step back, and the new adapter is \
         another than that leads to"
    )]
    StepBack,
    /// A result that is further from the adapter before than the plan allows.
    #[error(
        "chosen-model attack: the new adapter is {got} from the old in L2 norm, and the clip and \
         server learning rate allow {most}"
    )]
    Step {
        /// The norm of the step.
        got: f64,
        /// The largest that the results can have come to.
        most: f64,
    },
    /// An adapter that does not fit.
    #[error(transparent)]
    UnfitAdapter(#[from] AdapterError),
    /// The aggregator's signature on the result does not verify.
    #[error("the result is not signed by the aggregator that this member joined")]
    ResultSignature,
    /// The round's numbers give no fixed-point format.
    #[error("the round cannot be encoded: {0}")]
    Fixed(#[from] FixedError),
    /// Sharing this member's secrets failed.
    #[error("the secrets cannot be shared: {0}")]
    Shamir(#[from] ShamirError),
}
