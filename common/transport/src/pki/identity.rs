//! Who a certificate is for: the names in it, and the authority's fingerprint.

use std::fmt;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::GeneralName;

use super::certificate::{Certificate, parse_certificate};
use super::error::PkiError;
use super::keys::key_digest;

/// The one name in every federation's server certificate. Clients trust a pinned authority and
/// this name, so an aggregator may move between addresses.
pub const SERVER_NAME: &str = "aggregator.fedlora";

/// What follows a member's name in its certificate.
pub const MEMBER_SUFFIX: &str = ".member.fedlora";

/// BLAKE3 of the authority's certificate (DER): what a join token carries and a joining member
/// checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CaFingerprint(pub Digest);

impl CaFingerprint {
    /// The fingerprint of an authority's certificate.
    pub fn of(certificate: &Certificate) -> Self {
        Self::of_der(certificate.as_der())
    }

    pub(crate) fn of_der(der: &[u8]) -> Self {
        Self(Digest::of("fedlora v1 authority certificate", der))
    }
}

impl fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who a verified certificate says the peer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The member's name.
    pub name: MemberName,
    /// Digest of its public key (SubjectPublicKeyInfo, DER): stable when a certificate is renewed
    /// for the same key.
    pub key: Digest,
    /// The certificate's end.
    pub not_after: Timestamp,
}

impl Peer {
    /// Reads a member's certificate. It must already have been verified against the authority:
    /// this only says what is in it.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] unless it names exactly one member and nothing else.
    pub fn from_certificate(certificate: &Certificate) -> Result<Self, PkiError> {
        let parsed = parse_certificate(certificate.as_der())?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| PkiError::certificate(error.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let [GeneralName::DNSName(name)] = names else {
            return Err(PkiError::certificate(format!(
                "{} names, where one DNS name is expected",
                names.len()
            )));
        };
        let name = name
            .strip_suffix(MEMBER_SUFFIX)
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| {
                let shown: String = name.chars().take(80).collect();
                PkiError::certificate(format!("'{shown}' is not NAME{MEMBER_SUFFIX}"))
            })?;
        Ok(Self {
            name,
            key: key_digest(parsed.public_key().raw),
            not_after: {
                let seconds = parsed.validity().not_after.timestamp();
                Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
            },
        })
    }
}
