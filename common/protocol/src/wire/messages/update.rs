//! M3: which vector a member uploaded.

use serde::{Deserialize, Serialize};

use crate::ids::MemberIndex;
use fedlora_common::digest::{Digest, DigestWriter};

use super::super::verified::Signable;

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
