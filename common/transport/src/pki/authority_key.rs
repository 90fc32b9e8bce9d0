//! What signs for the authority: a key in memory, or one that never leaves the device that holds it.

use std::fmt;
use std::sync::Mutex;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use zeroize::{Zeroize, Zeroizing};

use super::error::PkiError;
use super::keys::{TlsKeyPair, key_digest};
use fedlora_common::digest::Digest;

/// A key on P-256 that something else holds, such as a hardware token.
pub trait RemoteKey: fmt::Debug + Send + Sync {
    /// The public key: a point on P-256, uncompressed (SEC 1, section 2.3.3): 65 bytes.
    fn public_key(&self) -> &[u8];

    /// Signs `message` by ECDSA with SHA-256; the signature in DER.
    ///
    /// # Errors
    /// Why the holder did not sign, for people.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String>;
}

/// What signs for the authority.
pub(super) enum AuthorityKey {
    /// Wiped when dropped.
    InMemory(KeyPair),
    Remote {
        key: Box<dyn RemoteKey>,
        /// Why it did not sign: rcgen's error has no room for words.
        refusal: Mutex<Option<String>>,
    },
}

impl AuthorityKey {
    pub(super) fn remote(key: Box<dyn RemoteKey>) -> Self {
        let refusal = Mutex::default();
        Self::Remote { key, refusal }
    }

    /// What an error of the library means.
    pub(super) fn error(&self, error: rcgen::Error) -> PkiError {
        let refusal = match self {
            Self::InMemory(_) => None,
            Self::Remote { refusal, .. } => refusal.lock().ok().and_then(|mut one| one.take()),
        };
        match refusal {
            Some(reason) => PkiError::Remote { reason },
            None => PkiError::Generation(error),
        }
    }

    pub(super) fn generate() -> Result<Self, PkiError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self::InMemory)
            .map_err(PkiError::Generation)
    }

    pub(super) fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Ok(Self::InMemory(TlsKeyPair::from_pem(pem)?.0))
    }

    pub(super) fn digest(&self) -> Digest {
        key_digest(&self.subject_public_key_info())
    }

    /// The private key as PKCS #8 PEM; nothing where another holds it.
    pub(super) fn to_pem(&self) -> Option<Zeroizing<String>> {
        match self {
            Self::InMemory(key) => Some(Zeroizing::new(key.serialize_pem())),
            Self::Remote { .. } => None,
        }
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Self::InMemory(key) => key.der_bytes(),
            Self::Remote { key, .. } => key.public_key(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Self::InMemory(key) => key.sign(message),
            Self::Remote { key, refusal } => key.sign(message).map_err(|reason| {
                if let Ok(mut refusal) = refusal.lock() {
                    *refusal = Some(reason);
                }
                rcgen::Error::RemoteKeyError
            }),
        }
    }
}

impl Drop for AuthorityKey {
    fn drop(&mut self) {
        match self {
            // aws-lc wipes its own form of it.
            Self::InMemory(key) => key.zeroize(),
            Self::Remote { .. } => {}
        }
    }
}
