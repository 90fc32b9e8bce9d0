//! What is wrong with a key, a request or a certificate.

use std::path::PathBuf;

use fedlora_common::digest::Digest;
use time::OffsetDateTime;

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
    /// A passphrase that does not open the key.
    #[error("the passphrase does not open the key")]
    WrongPassphrase,
    /// A sealed key that no passphrase opens.
    #[error("the sealed key cannot be used: {reason}")]
    Sealed {
        /// What was found.
        reason: String,
    },
    /// What holds the key did not sign.
    #[error("the holder of the authority's key did not sign: {reason}")]
    Remote {
        /// What it said.
        reason: String,
    },
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
    pub(super) fn request(reason: impl Into<String>) -> Self {
        Self::Request {
            reason: reason.into(),
        }
    }

    pub(super) fn certificate(reason: impl Into<String>) -> Self {
        Self::Certificate {
            reason: reason.into(),
        }
    }
}
