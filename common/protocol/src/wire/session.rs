//! How a session begins: joining, the hello, and what each bulk stream is for.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::sign::{IdentityPublic, Signature};
use crate::ids::{MemberName, RunId};
use fedlora_common::digest::{Digest, DigestWriter};

use super::messages::UpdateClaim;
use super::verified::Unverified;
use super::versions::Protocols;

/// The first words of a member on each connection. In every version of the protocol they have this form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberHello {
    /// The versions that the member speaks.
    pub protocol: Protocols,
    /// The program's release, for the other side's log.
    pub release: String,
}

/// The aggregator's answer to a hello that it accepts. It has this form in every version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAnswer {
    /// The version that both speak on this connection.
    pub protocol: u16,
    /// Another certificate for the member's key, DER, where its own needs one.
    pub certificate: Option<Vec<u8>>,
}

/// What a member's connection is for: the first frame on its control stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To take part in the current run. The member gets the plan of a run as soon as there is one.
    TakePart {
        /// The run that this member is in already. Where that one is over, the member is shown its
        /// results and its end instead of the current run.
        run: Option<RunId>,
    },
    /// To wait for a run without taking part in it: the member gets the plan of each run that is served.
    Watch,
    /// To read what is published of a run: its plan, roster and results so far, and its adapters.
    /// The aggregator then ends the control stream.
    Fetch {
        /// The run; `None` for the one that was begun last.
        run: Option<RunId>,
    },
    /// To leave the federation for good. The aggregator removes the member, and ends the control stream
    /// once that is durable.
    Leave,
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
        /// The vector's length in bytes.
        length: u64,
    },
    /// The member asks for a global adapter, as a bulk transfer of its little-endian f32
    /// values.
    FetchAdapter {
        /// The digest of the adapter, as the signed result names it.
        adapter: Digest,
    },
    /// The member asks for the file of weights of a published adapter, as a bulk transfer; on a
    /// connection for [`Purpose::Fetch`].
    FetchWeights {
        /// The digest of the adapter, as the signed result names it.
        adapter: Digest,
    },
}

/// The aggregator's answer on a bulk stream: to its header, and to an update once it is
/// stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamReply {
    /// The header is accepted, or the update is stored.
    Accepted,
    /// The stream is refused.
    Refused {
        /// The aggregator's reason, for the member's log.
        reason: String,
    },
}

/// An invitation's one-time secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct JoinSecret(pub [u8; 32]);

impl JoinSecret {
    /// The digest that the aggregator stores instead of the secret.
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
    /// The versions that the member speaks.
    pub protocol: Protocols,
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
    /// The member has joined.
    Welcome {
        /// The federation's name, as the operator chose it.
        federation: String,
        /// The member's certificate, DER.
        certificate: Vec<u8>,
        /// The address that runs are served at.
        address: String,
        /// The aggregator's identity key, which signs plans and results.
        aggregator: IdentityPublic,
    },
    /// The member has not joined.
    Refused {
        /// What the aggregator found, and what would help.
        reason: String,
    },
}
