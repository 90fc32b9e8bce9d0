//! M4: who is in the sum, and the signatures on that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::merkle;
use crate::crypto::sign::Signature;
use crate::ids::{MemberIndex, MemberSet};
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::{Signable, Unverified};
use super::update::{UpdateClaim, dealers_digest};

/// Who is in the sum, with the digests of their masked vectors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survivors(pub BTreeMap<MemberIndex, Digest>);

impl Survivors {
    /// The list as members see it.
    pub fn list(&self) -> SurvivorList {
        SurvivorList {
            members: self.0.keys().copied().collect(),
            vectors: merkle::root(&self.leaves()),
        }
    }

    /// The proof that `member`'s vector is in the list; empty where it is not.
    pub fn proof(&self, member: MemberIndex) -> Vec<Digest> {
        let place = self.0.keys().position(|other| *other == member);
        place.map_or_else(Vec::new, |place| merkle::proof(&self.leaves(), place))
    }

    fn leaves(&self) -> Vec<Digest> {
        self.0
            .iter()
            .map(|(member, vector)| leaf(*member, vector))
            .collect()
    }
}

fn leaf(member: MemberIndex, vector: &Digest) -> Digest {
    DigestWriter::new("fedlora 2 survivor")
        .number(member.0.into())
        .digest(vector)
        .finish()
}

/// M4: who is in the sum, with the root of a Merkle tree over their vectors' digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurvivorList {
    /// The members in the sum.
    pub members: MemberSet,
    /// The root over member and vector of each, ascending by member.
    pub vectors: Digest,
}

impl SurvivorList {
    /// The digest of the list: of the transcript, those among whom masks are, and the survivors.
    pub fn digest(&self, transcript: &Digest, dealers: &MemberSet) -> Digest {
        let mut writer = DigestWriter::new("fedlora 3 M4 survivors");
        writer.digest(&dealers_digest(transcript, dealers));
        self.members.write_to(&mut writer);
        writer.digest(&self.vectors).finish()
    }

    /// Whether `member` is on the list with `vector`.
    pub fn holds(&self, member: MemberIndex, vector: &Digest, proof: &[Digest]) -> bool {
        let place = self.members.iter().position(|other| other == member);
        place.is_some_and(|place| {
            let leaf = leaf(member, vector);
            merkle::verify(&self.vectors, self.members.len(), place, &leaf, proof)
        })
    }
}

/// What a survivor signs: the list, as seen by one of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The member that signs.
    pub member: MemberIndex,
    /// The digest of the list, of [`SurvivorList::digest`].
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

/// M4: what a holder must see before it reveals. The signatures on the list confirm it; those and
/// the claims show among whom each survivor masked whose self-mask the holder has a share of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Confirmations {
    /// Signatures of survivors on the list.
    pub signatures: BTreeMap<MemberIndex, Signature>,
    /// What those of the receiver's neighbours claimed that have not signed the list.
    pub claims: BTreeMap<MemberIndex, ClaimedVector>,
}

/// What a member signed of its vector in M3, without what its receiver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedVector {
    /// The digest of the packed masked vector.
    pub vector: Digest,
    /// The signature of the [`UpdateClaim`].
    pub signature: Signature,
}

impl From<&Unverified<UpdateClaim>> for ClaimedVector {
    fn from(claim: &Unverified<UpdateClaim>) -> Self {
        Self {
            vector: claim.claimed().vector,
            signature: claim.signature(),
        }
    }
}
