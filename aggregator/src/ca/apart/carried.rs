//! The files that are carried. What is signed are the bytes of a text within the file, so that nothing
//! depends on how a document is written.

use std::fs;
use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic, Signature};
use fedlora_protocol::ids::MemberName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::CarriedError;
use crate::ca::requests::CertificateRequest;
use crate::ca::{CaError, io_error};

/// What the aggregator's signature of requests is of.
const SIGNED: &str = "fedlora 1 certificate requests";
/// The most bytes of a carried file: some kilobytes for each of the most members.
const MAX_BYTES: u64 = 64 << 20;

/// What waits for the authority's key, as it is carried there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// The fingerprint of the authority that is to sign.
    pub authority: String,
    /// When the file was written.
    pub exported: Timestamp,
    /// What waits.
    pub requests: Vec<CertificateRequest>,
    /// Whoever was removed: the authority gives these keys no certificate any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RemovedMember>,
}

/// A member that was removed, with the key that its certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedMember {
    /// The member's name.
    pub member: MemberName,
    /// The digest of its TLS public key.
    pub key: Digest,
}

/// What was signed, as it is carried back. Each certificate proves itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// The fingerprint of the authority that has signed.
    pub authority: String,
    /// What was signed.
    pub certificates: Vec<Carried>,
}

/// A certificate on its way to the aggregator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// The name of the request that it answers.
    pub request: String,
    /// The certificate, in PEM.
    pub certificate: String,
}

/// A text with the aggregator's signature.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    requests: String,
    signature: Signature,
}

impl Requests {
    /// Writes the file, signed by the aggregator. One that is there is replaced.
    ///
    /// # Errors
    /// [`CaError::Io`].
    pub fn write(&self, path: &Path, identity: &IdentityKey) -> Result<(), CaError> {
        let requests = serde_json::to_string(self).expect("requests have text keys");
        let signature = identity.sign(&Digest::of(SIGNED, requests.as_bytes()));
        write(
            path,
            &Signed {
                requests,
                signature,
            },
        )
    }

    /// Reads a file that this aggregator has signed.
    ///
    /// # Errors
    /// [`CarriedError::Malformed`], [`CarriedError::Signature`] or [`CaError::Io`].
    pub fn read(path: &Path, aggregator: &IdentityPublic) -> Result<Self, CaError> {
        let signed: Signed = read(path, "requests for certificates")?;
        let digest = Digest::of(SIGNED, signed.requests.as_bytes());
        if aggregator.verify(&digest, &signed.signature).is_err() {
            return Err(CarriedError::Signature {
                path: path.to_owned(),
            }
            .into());
        }
        parse(path, &signed.requests, "requests for certificates")
    }
}

impl Certificates {
    /// Writes the file. One that is there is replaced.
    ///
    /// # Errors
    /// [`CaError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), CaError> {
        write(path, self)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`CarriedError::Malformed`] or [`CaError::Io`].
    pub fn read(path: &Path) -> Result<Self, CaError> {
        read(path, "certificates that were signed")
    }
}

/// Checks that a file is of this authority.
pub(super) fn check_authority(path: &Path, found: &str, own: &str) -> Result<(), CarriedError> {
    match found == own {
        true => Ok(()),
        false => Err(CarriedError::OtherAuthority {
            path: path.to_owned(),
            found: found.chars().take(64).collect(),
            own: own.to_owned(),
        }),
    }
}

pub(super) fn write(path: &Path, document: &impl Serialize) -> Result<(), CaError> {
    let text = serde_json::to_vec_pretty(document).expect("documents have text keys");
    write_atomic(path, &text, Access::Owner).map_err(|error| io_error(path, error))
}

pub(super) fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, CaError> {
    let length = fs::metadata(path)
        .map_err(|error| io_error(path, error))?
        .len();
    if length > MAX_BYTES {
        return Err(CarriedError::Malformed {
            path: path.to_owned(),
            reason: format!("it has {length} bytes; at most {MAX_BYTES} are read"),
        }
        .into());
    }
    let text = fs::read_to_string(path).map_err(|error| io_error(path, error))?;
    parse(path, &text, what)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str, what: &str) -> Result<T, CaError> {
    let parsed = serde_json::from_str(text);
    Ok(parsed.map_err(|error| CarriedError::Malformed {
        path: path.to_owned(),
        reason: format!("not a file of {what}: {error}"),
    })?)
}
