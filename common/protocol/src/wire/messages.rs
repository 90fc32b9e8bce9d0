//! The round's messages, M0 to M6.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::keys::AgreementPublic;
use crate::crypto::sign::Signature;
use crate::fixed::{LaneBits, WeightClass};
use crate::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use crate::plan::{Roster, SignedPlan};
use fedlora_adapter::{Factors, Layout};
use fedlora_common::digest::{Digest, DigestWriter};

use super::verified::{Signable, Unverified};

/// The suite of algorithms: X25519, AES-256-CTR, ChaCha20-Poly1305, Ed25519, BLAKE3,
/// Shamir over GF(256).
pub const SUITE: u16 = 1;

/// M0: the aggregator opens an attempt at a round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The suite of algorithms: [`SUITE`].
    pub suite: u16,
    /// The run that the round belongs to.
    pub run: RunId,
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// The attempt's number within the round, from 1.
    pub attempt: Attempt,
    /// The digest of the previous round's result; of the run's start for the first round.
    pub previous: Digest,
    /// The digest of the roster.
    pub roster: Digest,
    /// The digest of the global adapter that training starts from.
    pub adapter: Digest,
    /// The digest of the run plan.
    pub plan: Digest,
    /// The digest of the layout of what this round trains.
    pub layout: Digest,
    /// The factors that this round trains.
    pub factors: Factors,
    /// The largest L2 norm of a delta; members scale theirs down to it.
    pub clip: f32,
    /// Bits a lane.
    pub bits: LaneBits,
    /// How many shares recover a secret, and how many signatures confirm a survivor list.
    pub threshold: u16,
    /// The fewest contributors in the sum.
    pub minimum: u16,
}

impl Open {
    /// What every signature, seal and mask of this round is bound to.
    pub fn digest(&self) -> Digest {
        let factors = match self.factors {
            Factors::Both => 0,
            Factors::A => 1,
            Factors::B => 2,
        };
        DigestWriter::new("fedlora 1 M0 open")
            .number(self.suite.into())
            .raw(&self.run.0)
            .number(self.round.0.into())
            .number(self.attempt.0.into())
            .digest(&self.previous)
            .digest(&self.roster)
            .digest(&self.adapter)
            .digest(&self.plan)
            .digest(&self.layout)
            .number(factors)
            .number(self.clip.to_bits().into())
            .number(self.bits.bits().into())
            .number(self.threshold.into())
            .number(self.minimum.into())
            .finish()
    }
}

/// M1: a member's fresh keys for one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The member whose keys they are.
    pub member: MemberIndex,
    /// The key with which others seal shares to this member.
    pub sealing: AgreementPublic,
    /// The key from which pair masks with the others are agreed.
    pub masking: AgreementPublic,
    /// The commitment to the self-mask seed.
    pub self_mask: Digest,
    /// How much the member weighs in the mean.
    pub weight: WeightClass,
    /// The newest round of this run for which the member revealed shares; 0 for none.
    pub revealed: RoundNumber,
}

impl Signable for Keys {
    fn signed_digest(&self, open: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 M1 keys")
            .digest(open)
            .number(self.member.0.into())
            .raw(&self.sealing.0)
            .raw(&self.masking.0)
            .digest(&self.self_mask)
            .number(self.weight.class().into())
            .number(self.revealed.0.into())
            .finish()
    }
}

/// The digest of all keys of a round: what masks and sealed shares are bound to. `keys` is
/// ordered by member.
pub fn keys_digest<'a>(open: &Digest, keys: impl IntoIterator<Item = &'a Keys>) -> Digest {
    let mut writer = DigestWriter::new("fedlora 1 keys transcript");
    writer.digest(open);
    for one in keys {
        writer.digest(&one.signed_digest(open));
    }
    writer.finish()
}

/// M2: one sender's shares for one holder, sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedShares(pub Vec<u8>);

impl fmt::Debug for SealedShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedShares({} bytes)", self.0.len())
    }
}

/// M3, beside the vector itself: which vector it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateClaim {
    /// The member whose update it is.
    pub member: MemberIndex,
    /// The digest of the packed masked vector.
    pub vector: Digest,
}

impl Signable for UpdateClaim {
    fn signed_digest(&self, open: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 M3 masked update")
            .digest(open)
            .number(self.member.0.into())
            .digest(&self.vector)
            .finish()
    }
}

/// The digest of a packed masked vector, the same that the bulk transfer checks.
pub fn vector_digest(packed: &[u8]) -> Digest {
    Digest::from_bytes(*blake3::hash(packed).as_bytes())
}

/// M4: who is in the sum, with the digests of their masked vectors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Survivors(pub BTreeMap<MemberIndex, Digest>);

impl Survivors {
    /// The digest of the list alone.
    pub fn digest(&self, open: &Digest) -> Digest {
        let mut writer = DigestWriter::new("fedlora 1 M4 survivors");
        writer.digest(open).number(self.0.len() as u64);
        for (member, vector) in &self.0 {
            writer.number(member.0.into()).digest(vector);
        }
        writer.finish()
    }
}

/// What a survivor signs: the list, as seen by one of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The member that signs.
    pub member: MemberIndex,
    /// The digest of the list, of [`Survivors::digest`].
    pub list: Digest,
}

impl Signable for Confirmation {
    fn signed_digest(&self, open: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 M4 confirmation")
            .digest(open)
            .number(self.member.0.into())
            .digest(&self.list)
            .finish()
    }
}

/// M5: the share that one holder reveals of one member's secret. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub enum RevealedShare {
    /// A share of a survivor's self-mask seed.
    SelfMask([u8; 32]),
    /// A share of a dropped member's mask secret.
    MaskSecret([u8; 32]),
}

impl fmt::Debug for RevealedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfMask(_) => "SelfMask(..)",
            Self::MaskSecret(_) => "MaskSecret(..)",
        })
    }
}

/// M6: a round's result, signed by the aggregator and chained to the result before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundResult {
    /// The run that the round belongs to.
    pub run: RunId,
    /// The round's number, from 1.
    pub round: RoundNumber,
    /// The attempt that reached this result.
    pub attempt: Attempt,
    /// The digest of the new global adapter.
    pub adapter: Digest,
    /// The sum of the survivors' weights.
    pub total_weight: u64,
    /// The digest of keys and survivor list.
    pub transcript: Digest,
    /// The digest of the previous round's result; of the run's start for the first.
    pub previous: Digest,
    /// The members in the sum, ascending.
    pub survivors: Vec<MemberIndex>,
    /// All other members of the roster, ascending.
    pub dropped: Vec<MemberIndex>,
    /// Mean training loss over the survivors in nats a token, from the masked sum; none where
    /// they are fewer than five.
    pub train_loss: Option<f32>,
    /// Mean loss of the round's starting adapter on the survivors' own records, likewise.
    pub eval_loss: Option<f32>,
    /// How many survivors' deltas exceeded the clip, likewise.
    pub clipped: Option<u16>,
}

impl RoundResult {
    /// What the next round's result is chained to.
    pub fn digest(&self) -> Digest {
        let members = |list: &[MemberIndex]| {
            list.iter()
                .flat_map(|member| member.0.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let loss = |loss: Option<f32>| loss.map_or(u64::MAX, |value| value.to_bits().into());
        DigestWriter::new("fedlora 1 M6 result")
            .raw(&self.run.0)
            .number(self.round.0.into())
            .number(self.attempt.0.into())
            .digest(&self.adapter)
            .number(self.total_weight)
            .digest(&self.transcript)
            .digest(&self.previous)
            .bytes(&members(&self.survivors))
            .bytes(&members(&self.dropped))
            .number(loss(self.train_loss))
            .number(loss(self.eval_loss))
            .number(self.clipped.map_or(u64::MAX, u64::from))
            .finish()
    }

    /// What the first round's result is chained to.
    pub fn chain_start(run: RunId, plan: &Digest, roster: &Digest, adapter: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 result chain")
            .raw(&run.0)
            .digest(plan)
            .digest(roster)
            .digest(adapter)
            .finish()
    }

    /// The transcript digest of a round.
    pub fn transcript_of(keys: &Digest, list: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 round transcript")
            .digest(keys)
            .digest(list)
            .finish()
    }
}

impl Signable for RoundResult {
    fn signed_digest(&self, context: &Digest) -> Digest {
        DigestWriter::new("fedlora 1 M6 signature")
            .digest(context)
            .digest(&self.digest())
            .finish()
    }
}

/// Why an attempt at a round failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RoundFailure {
    /// Too few members went through a phase.
    #[error("{got} members answered in the {phase} phase, {needed} are needed")]
    Quorum {
        /// The phase that closed.
        phase: PhaseName,
        /// Members that answered.
        got: u16,
        /// Members that the phase needs.
        needed: u16,
    },
    /// The revealed shares do not recover the secrets that the members committed to.
    #[error("the revealed shares do not recover the masks")]
    Recovery,
    /// The unmasked sum is not a sum of encoded updates.
    #[error("the unmasked sum is not a sum of encoded updates")]
    Sum,
    /// The aggregator could not store or read what it needs.
    #[error("the aggregator's storage failed")]
    Storage,
}

/// The coordinator's phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseName {
    /// Collects the keys (M1).
    Keys,
    /// Collects the sealed shares (M2).
    Shares,
    /// Collects the masked updates (M3).
    Updates,
    /// Collects the signatures on the survivor list (M4).
    Confirm,
    /// Collects the revealed shares (M5).
    Reveal,
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "keys",
            Self::Shares => "shares",
            Self::Updates => "updates",
            Self::Confirm => "confirm",
            Self::Reveal => "reveal",
        })
    }
}

/// From the aggregator to one member, on its control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToMember {
    /// The run that this aggregator serves.
    Plan(SignedPlan),
    /// The run's members, once all have joined.
    Roster(Roster),
    /// M0: an attempt at a round opens.
    Open(Open),
    /// M1: the keys of all members that take part, in order.
    PeerKeys(Vec<Unverified<Keys>>),
    /// M2: what the others sealed for this member, by sender.
    PeerShares(BTreeMap<MemberIndex, SealedShares>),
    /// M4: the survivor list to sign.
    Survivors(Survivors),
    /// M4: the survivors' signatures on the list.
    Confirmations(Vec<Unverified<Confirmation>>),
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
}

/// From a member to the aggregator, on its control stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToAggregator {
    /// The member accepts the plan and is ready to train.
    Ready(Ready),
    /// A message within a round.
    Round {
        /// The digest of the M0 that it answers.
        open: Digest,
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
    /// M1: the member's signed keys.
    Keys(Unverified<Keys>),
    /// M2: the sealed shares, by holder.
    Shares(BTreeMap<MemberIndex, SealedShares>),
    /// M4: the member's signature on the survivor list.
    Confirm(Signature),
    /// M5: one share for each owner of a secret, by owner.
    Reveal(BTreeMap<MemberIndex, RevealedShare>),
    /// The member leaves this round; the others continue without waiting for it.
    Abstain,
}
