//! How a session begins: joining, the hello, and what each bulk stream is for.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::ids::MemberName;
use fedlora_common::digest::{Digest, DigestWriter};

use super::messages::UpdateClaim;
use super::verified::Unverified;

/// The version of everything in [`super`]; it stands in every hello.
pub const PROTOCOL: u16 = 1;

/// The first words of a member on each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberHello {
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// The program's release, for the other side's log.
    pub release: String,
}

/// What a bulk stream that a member opened is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StreamHeader {
    /// M3: a masked update follows as a bulk transfer, then the aggregator's verdict.
    Update {
        /// The digest of the M0 that it answers.
        open: Digest,
        /// The signed digest of the vector.
        claim: Unverified<UpdateClaim>,
        /// Its length in bytes.
        length: u64,
    },
    /// The member asks for a global adapter, as a bulk transfer of its little-endian f32
    /// values.
    FetchAdapter {
        /// The adapter's digest.
        adapter: Digest,
    },
}

/// The aggregator's answer on a bulk stream: to its header, and to an update once it is
/// stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamReply {
    /// Go on; or, at the end: it is in.
    Accepted,
    /// Not taken.
    Refused {
        /// Why, for the member's log.
        reason: String,
    },
}

/// An invitation's one-time secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct JoinSecret(pub [u8; 32]);

impl JoinSecret {
    /// What the aggregator stores in the secret's stead.
    pub fn digest(&self) -> Digest {
        Digest::of("fedlora 1 join secret", &self.0)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(..)")
    }
}

/// A member's request to join, on the enrolment endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// The name that the invitation is for.
    pub name: MemberName,
    /// The invitation's one-time secret.
    pub secret: JoinSecret,
    /// The certificate signing request, DER.
    pub certificate_request: Vec<u8>,
    /// The identity key, made at the member.
    pub identity: IdentityPublic,
    /// The identity key's signature of [`JoinRequest::proof_digest`]: proof of possession.
    pub proof: Signature,
}

impl JoinRequest {
    /// What the identity key signs.
    pub fn proof_digest(name: &MemberName, certificate_request: &[u8]) -> Digest {
        DigestWriter::new("fedlora 1 join proof")
            .bytes(name.as_str().as_bytes())
            .bytes(certificate_request)
            .finish()
    }
}

/// The answer to a [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum JoinResponse {
    /// The member is in.
    Welcome {
        /// The federation's name.
        federation: String,
        /// Its certificate, DER.
        certificate: Vec<u8>,
        /// The address that runs are served at.
        address: String,
        /// The aggregator's identity key, which signs plans and results.
        aggregator: IdentityPublic,
    },
    /// It is not.
    Refused {
        /// What was found and what would do.
        reason: String,
    },
}
