//! M5: the shares that survivors reveal.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::shamir::Share;
use crate::ids::MemberIndex;
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::Signable;
use super::shares::ShareKind;

/// M5: the share that one holder reveals of one member's secret. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub enum RevealedShare {
    /// A share of a survivor's self-mask seed.
    SelfMask([u8; 32]),
    /// A share of the root of a dropped member's mask key.
    MaskRoot([u8; 32]),
}

impl RevealedShare {
    /// Which secret it is a share of.
    pub fn kind(&self) -> ShareKind {
        match self {
            Self::SelfMask(_) => ShareKind::SelfMask,
            Self::MaskRoot(_) => ShareKind::MaskRoot,
        }
    }

    /// The share itself.
    pub fn share(&self) -> Share {
        let (Self::SelfMask(bytes) | Self::MaskRoot(bytes)) = self;
        Share::from_bytes(*bytes)
    }
}

impl fmt::Debug for RevealedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SelfMask(_) => "SelfMask(..)",
            Self::MaskRoot(_) => "MaskRoot(..)",
        })
    }
}

/// M5: all that a holder reveals, one share for each owner of a secret. Signed, so that a forged
/// share is evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// The holder.
    pub member: MemberIndex,
    /// The digest of the survivor list that it is for.
    pub list: Digest,
    /// The shares, by owner.
    pub shares: BTreeMap<MemberIndex, RevealedShare>,
}

impl Signable for Reveal {
    fn signed_digest(&self, open: &Digest) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 M5 reveal");
        writer
            .digest(open)
            .number(self.member.0.into())
            .digest(&self.list)
            .number(self.shares.len() as u64);
        for (owner, share) in &self.shares {
            let (kind, bytes) = match share {
                RevealedShare::SelfMask(bytes) => (0, bytes),
                RevealedShare::MaskRoot(bytes) => (1, bytes),
            };
            writer.number(owner.0.into()).number(kind).raw(bytes);
        }
        writer.finish()
    }
}
