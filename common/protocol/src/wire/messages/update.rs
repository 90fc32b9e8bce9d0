//! M3: which vector a member uploaded.

use serde::{Deserialize, Serialize};

use crate::ids::{MemberIndex, MemberSet};
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::Signable;

/// M3, beside the vector itself: which vector it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateClaim {
    /// The member whose update it is.
    pub member: MemberIndex,
    /// The digest of the packed masked vector.
    pub vector: Digest,
    /// Among whom it was masked, of [`dealers_digest`].
    pub dealers: Digest,
}

impl Signable for UpdateClaim {
    fn signed_digest(&self, open: &Digest) -> Digest {
        DigestWriter::new("fedlora 3 M3 masked update")
            .digest(open)
            .number(self.member.0.into())
            .digest(&self.vector)
            .digest(&self.dealers)
            .finish()
    }
}

/// The digest of those among whom masks are, in the cohort of this transcript.
pub fn dealers_digest(transcript: &Digest, dealers: &MemberSet) -> Digest {
    let mut writer = DigestWriter::new("fedlora 3 M2 dealers");
    writer.digest(transcript);
    dealers.write_to(&mut writer);
    writer.finish()
}

/// The digest of a packed masked vector, the same that the bulk transfer checks.
pub fn vector_digest(packed: &[u8]) -> Digest {
    let mut whole = VectorDigest::default();
    whole.update(packed);
    whole.finish()
}

/// [`vector_digest`] of a vector that comes in pieces.
#[derive(Debug, Default)]
pub struct VectorDigest(blake3::Hasher);

impl VectorDigest {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces together.
    pub fn finish(&self) -> Digest {
        Digest::from_bytes(*self.0.finalize().as_bytes())
    }
}
