//! The beacon that the neighbours are drawn from, where not all are neighbours of all. One member
//! more than may collude commits to a nonce before any of them opens its own, so that nobody
//! chooses the outcome.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::ids::MemberIndex;
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::Signable;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 16;

/// A member's commitment to its nonce.
pub fn commitment_to(open: &Digest, member: MemberIndex, nonce: &[u8; NONCE_LEN]) -> Digest {
    DigestWriter::new("fedlora 2 beacon commitment")
        .digest(open)
        .number(member.0.into())
        .raw(nonce)
        .finish()
}

/// The commitments that the beacon comes from, fixed before any is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commitments(pub BTreeMap<MemberIndex, Digest>);

impl Commitments {
    /// The digest that every opening is signed with, and every member's keys.
    pub fn digest(&self, open: &Digest) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 beacon commitments");
        writer.digest(open).number(self.0.len() as u64);
        for (member, commitment) in &self.0 {
            writer.number(member.0.into()).digest(commitment);
        }
        writer.finish()
    }

    /// Whether `opening` is what `member` committed to, signed with its `identity` after it had seen
    /// all commitments.
    pub fn is_opened(
        &self,
        open: &Digest,
        member: MemberIndex,
        identity: &IdentityPublic,
        opening: &BeaconOpening,
    ) -> bool {
        let signed = OpenedCommitment {
            member,
            commitments: self.digest(open),
            nonce: opening.nonce,
        };
        let committed = commitment_to(open, member, &opening.nonce);
        self.0.get(&member) == Some(&committed)
            && identity
                .verify(&signed.signed_digest(open), &opening.signature)
                .is_ok()
    }

    /// The beacon, once all are opened. The openings must be those of the commitments.
    pub fn beacon(&self, open: &Digest, openings: &BTreeMap<MemberIndex, BeaconOpening>) -> Digest {
        let mut writer = DigestWriter::new("fedlora 2 beacon");
        writer.digest(&self.digest(open));
        for opening in openings.values() {
            writer.raw(&opening.nonce);
        }
        writer.finish()
    }
}

/// A contributor's nonce, with its signature of [`OpenedCommitment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeaconOpening {
    /// The nonce behind its commitment.
    pub nonce: [u8; NONCE_LEN],
    /// The contributor's signature.
    pub signature: Signature,
}

/// What a contributor signs: that it opened its commitment after it had seen all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedCommitment {
    /// The contributor.
    pub member: MemberIndex,
    /// The digest of all commitments.
    pub commitments: Digest,
    /// Its nonce.
    pub nonce: [u8; NONCE_LEN],
}

impl Signable for OpenedCommitment {
    fn signed_digest(&self, open: &Digest) -> Digest {
        DigestWriter::new("fedlora 2 beacon opening")
            .digest(open)
            .number(self.member.0.into())
            .digest(&self.commitments)
            .raw(&self.nonce)
            .finish()
    }
}
