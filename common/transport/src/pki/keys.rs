//! TLS keys, and a key with its certificate.

use std::fmt;

use fedlora_common::digest::Digest;
use pkcs8::SecretDocument;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::certificate::{Certificate, parse_certificate};
use super::error::PkiError;

/// A TLS key pair: ECDSA on P-256. Made where it is used; only its public half travels.
pub struct TlsKeyPair(pub(super) KeyPair);

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
        // Decoded where it is wiped afterwards.
        let (label, der) = SecretDocument::from_pem(pem).map_err(|_| PkiError::Key)?;
        if label != "PRIVATE KEY" {
            return Err(PkiError::Key);
        }
        let der = PrivatePkcs8KeyDer::from(der.as_bytes());
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|_| PkiError::Key)
    }

    /// The private key as PKCS #8 PEM, for a file that only its owner may read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// Digest of the public key, as [`Peer::key`](super::Peer::key) shows it.
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

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
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

/// The digest of a public key, as [`Peer::key`](super::Peer::key) shows it.
pub(super) fn key_digest(subject_public_key_info: &[u8]) -> Digest {
    Digest::of("fedlora v1 tls public key", subject_public_key_info)
}
