//! The federation's certificates: one authority, made by the aggregator; one server
//! certificate; one client certificate a member.
//!
//! A member makes its TLS key where it will be used and sends a signing request; the key never
//! travels. The authority takes nothing from a request but the public key, once the request's
//! own signature has proved that the sender holds the private one: the name in the certificate is
//! the one that the operator invited. The current time is always an argument.

mod authority;
mod certificate;
mod store;

use std::fmt;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::prelude::GeneralName;
use zeroize::Zeroizing;

pub use authority::{CertificateAuthority, Issued, MAX_REQUEST_BYTES, Revocation, request_key};
pub use certificate::{Certificate, MAX_CERTIFICATE_BYTES, RevocationList};
pub use store::{load_certificate, save_certificate};

use certificate::parse_certificate;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::MemberName;

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

    pub(super) fn of_der(der: &[u8]) -> Self {
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
        })
    }
}

/// A TLS key pair: ECDSA on P-256. Made where it is used; only its public half travels.
pub struct TlsKeyPair(KeyPair);

impl TlsKeyPair {
    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`PkiError::Generation`] when the cryptographic library refuses.
    pub fn generate() -> Result<Self, PkiError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(PkiError::Generation)
    }

    /// Reads a key that [`TlsKeyPair::to_pem`] wrote.
    ///
    /// # Errors
    /// [`PkiError::Key`] when it is not a P-256 key in PKCS #8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|_| PkiError::Key)
    }

    /// The private key as PKCS #8 PEM, for a file that only its owner may read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// Digest of the public key, as [`Peer::key`] shows it.
    pub fn digest(&self) -> Digest {
        key_digest(&self.0.subject_public_key_info())
    }

    /// A certificate signing request (PKCS #10, DER): the public key, signed by the private one.
    ///
    /// # Errors
    /// [`PkiError::Generation`] when the cryptographic library refuses.
    pub fn signing_request(&self) -> Result<Vec<u8>, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .serialize_request(&self.0)
            .map(|request| request.der().to_vec())
            .map_err(PkiError::Generation)
    }

    fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

impl fmt::Debug for TlsKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsKeyPair({})", self.digest().short())
    }
}

/// A certificate with its private key: what an endpoint shows of itself.
pub struct Credentials {
    certificate: Certificate,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Joins a certificate and its key.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when it cannot be parsed, [`PkiError::OtherKey`] when it was
    /// issued for another key.
    pub fn new(certificate: Certificate, key: &TlsKeyPair) -> Result<Self, PkiError> {
        let found = key_digest(parse_certificate(certificate.as_der())?.public_key().raw);
        if found != key.digest() {
            return Err(PkiError::OtherKey {
                certificate: found,
                key: key.digest(),
            });
        }
        Ok(Self {
            certificate,
            key: key.to_der(),
        })
    }

    /// The certificate, as the peer sees it.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credentials({} byte certificate)",
            self.certificate.as_der().len()
        )
    }
}

fn key_digest(subject_public_key_info: &[u8]) -> Digest {
    Digest::of("fedlora v1 tls public key", subject_public_key_info)
}

/// What is wrong with a key, a request or a certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The cryptographic library refused.
    #[error("the cryptographic library refused: {0}")]
    Generation(#[source] rcgen::Error),
    /// A federation's name that cannot stand in a certificate.
    #[error(
        "a federation's name is 1 to 64 characters without control characters; this has {length}"
    )]
    FederationName {
        /// Characters found.
        length: usize,
    },
    /// A validity of no days, or of more than a hundred years.
    #[error("a validity of {days} days; 1 to 36500 can be given")]
    Validity {
        /// Days asked for.
        days: u32,
    },
    /// The authority ends before the certificate would begin.
    #[error("the authority's certificate ends at {not_after}: make a new federation")]
    AuthorityExpired {
        /// The authority's end.
        not_after: OffsetDateTime,
    },
    /// Not a private key of ours. Says nothing of what was found, which may be key material.
    #[error("not a P-256 private key in PKCS #8 PEM ('-----BEGIN PRIVATE KEY-----')")]
    Key,
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The key's or certificate's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A private key that anyone on the machine can read or replace.
    #[error(
        "{} is open to every user (mode {mode:03o}): chmod 600 it, and consider the key exposed",
        path.display()
    )]
    Exposed {
        /// The key's or certificate's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Certificate and key do not belong together.
    #[error("the certificate is for the key {certificate}, the private key given is {key}")]
    OtherKey {
        /// Digest of the key in the certificate.
        certificate: Digest,
        /// Digest of the key that was given.
        key: Digest,
    },
    /// A signing request that was refused.
    #[error("the certificate request is refused: {reason}")]
    Request {
        /// What was found.
        reason: String,
    },
    /// A certificate that cannot be used.
    #[error("the certificate cannot be used: {reason}")]
    Certificate {
        /// What was found.
        reason: String,
    },
}

impl PkiError {
    fn request(reason: impl Into<String>) -> Self {
        Self::Request {
            reason: reason.into(),
        }
    }

    fn certificate(reason: impl Into<String>) -> Self {
        Self::Certificate {
            reason: reason.into(),
        }
    }
}
