//! M2: each member's secrets, shared among its neighbours, with a commitment to every share; and
//! what the holders say of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::crypto::agreement::Encapsulation;
use crate::crypto::seal;
use crate::crypto::shamir::Share;
use crate::ids::MemberIndex;
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::Signable;

/// Two shares, sealed for their holder: 64 bytes and a tag of 16, in parts of 16.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedShares(pub [[u8; seal::OVERHEAD]; 5]);

impl SealedShares {
    /// What sealing two shares gave. `None` for another length.
    pub fn new(sealed: &[u8]) -> Option<Self> {
        let (parts, rest) = sealed.as_chunks();
        let parts = parts.try_into().ok()?;
        rest.is_empty().then_some(Self(parts))
    }

    /// The bytes, as sealing gave them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

impl fmt::Debug for SealedShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedShares({} bytes)", self.as_bytes().len())
    }
}

/// Which of a member's two secrets a share is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareKind {
    /// The seed of its self-mask, recovered where it survives.
    SelfMask,
    /// The root of its mask key, recovered where it drops out.
    MaskRoot,
}

/// Commitments to the two shares of one holder: 16 bytes each. Nobody but the dealer can look for
/// two shares with one commitment, and to the dealer that brings nothing but the blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareCommitments {
    self_mask: [u8; 16],
    mask_root: [u8; 16],
}

impl ShareCommitments {
    /// Commits to the shares that `dealer` gives to `holder`.
    pub fn new(
        transcript: &Digest,
        (dealer, holder): (MemberIndex, MemberIndex),
        self_mask: &Share,
        mask_root: &Share,
    ) -> Self {
        let to = |kind, share| commit(transcript, (dealer, holder), kind, share);
        Self {
            self_mask: to(ShareKind::SelfMask, self_mask),
            mask_root: to(ShareKind::MaskRoot, mask_root),
        }
    }

    /// Whether `share` is what was committed to. A share that is revealed is no secret any more.
    pub fn open_to(
        &self,
        transcript: &Digest,
        pair: (MemberIndex, MemberIndex),
        kind: ShareKind,
        share: &Share,
    ) -> bool {
        let committed = match kind {
            ShareKind::SelfMask => self.self_mask,
            ShareKind::MaskRoot => self.mask_root,
        };
        commit(transcript, pair, kind, share) == committed
    }

    /// The digest of what travels beside sealed shares in the open: their commitments, and the
    /// encapsulation for the pair's mask.
    pub fn beside(&self, mask: &Encapsulation) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 beside sealed shares");
        self.write_to(&mut writer);
        mask.write_to(&mut writer);
        writer.finish()
    }

    /// Adds both to a digest.
    pub fn write_to(&self, writer: &mut DigestWriter) {
        writer.raw(&self.self_mask).raw(&self.mask_root);
    }
}

fn commit(
    transcript: &Digest,
    (dealer, holder): (MemberIndex, MemberIndex),
    kind: ShareKind,
    share: &Share,
) -> [u8; 16] {
    let digest = DigestWriter::new("fedlora 2 share commitment")
        .digest(transcript)
        .number(dealer.0.into())
        .number(holder.0.into())
        .number(match kind {
            ShareKind::SelfMask => 0,
            ShareKind::MaskRoot => 1,
        })
        .raw(share.expose())
        .finish();
    digest.as_bytes()[..16]
        .try_into()
        .expect("half of 32 bytes")
}

/// What one dealer gives to one holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealtShares {
    /// The two shares, sealed.
    pub sealed: SealedShares,
    /// The commitments to them.
    pub commitments: ShareCommitments,
    /// The encapsulation behind the seal.
    pub seal: Encapsulation,
    /// The encapsulation behind the pair's mask, from the lower of the two; empty from the higher.
    pub mask: Encapsulation,
}

impl DealtShares {
    /// Adds all fields to a digest.
    pub fn write_to(&self, writer: &mut DigestWriter) {
        writer.bytes(self.sealed.as_bytes());
        self.commitments.write_to(writer);
        self.seal.write_to(writer);
        self.mask.write_to(writer);
    }
}

/// M2: what a member deals to all its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    /// The dealer.
    pub member: MemberIndex,
    /// The commitment to its self-mask seed.
    pub self_mask: Digest,
    /// The commitments to the shares that it keeps itself.
    pub own: ShareCommitments,
    /// What it gives to each neighbour, by holder.
    pub shares: BTreeMap<MemberIndex, DealtShares>,
}

impl Deal {
    /// The commitments to what `holder` has of this dealer.
    pub fn commitments(&self, holder: MemberIndex) -> Option<ShareCommitments> {
        if holder == self.member {
            return Some(self.own);
        }
        self.shares.get(&holder).map(|dealt| dealt.commitments)
    }
}

impl Signable for Deal {
    /// `transcript` is [`Cohort::transcript`](super::Cohort::transcript).
    fn signed_digest(&self, transcript: &Digest) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 M2 deal");
        writer
            .digest(transcript)
            .number(self.member.0.into())
            .digest(&self.self_mask);
        self.own.write_to(&mut writer);
        writer.number(self.shares.len() as u64);
        for (holder, dealt) in &self.shares {
            writer.number(holder.0.into());
            dealt.write_to(&mut writer);
        }
        writer.finish()
    }
}

/// What a holder signs: whose shares opened, and are what their dealers committed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldShares {
    /// The holder.
    pub member: MemberIndex,
    /// The commitments to what it holds, by dealer.
    pub held: BTreeMap<MemberIndex, ShareCommitments>,
}

impl Signable for HeldShares {
    /// `transcript` is [`Cohort::transcript`](super::Cohort::transcript).
    fn signed_digest(&self, transcript: &Digest) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 M2 held shares");
        writer
            .digest(transcript)
            .number(self.member.0.into())
            .number(self.held.len() as u64);
        for (dealer, commitments) in &self.held {
            writer.number(dealer.0.into());
            commitments.write_to(&mut writer);
        }
        writer.finish()
    }
}
