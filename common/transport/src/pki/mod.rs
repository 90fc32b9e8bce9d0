//! The federation's certificates: one authority, made by the aggregator; one server
//! certificate; one client certificate a member.
//!
//! A member makes its TLS key where it will be used and sends a signing request; the key never
//! travels. The authority takes nothing from a request but the public key, once the request's
//! own signature has proved that the sender holds the private one: the name in the certificate is
//! the one that the operator invited. The current time is always an argument.

mod authority;
mod authority_key;
mod certificate;
mod error;
mod identity;
mod keys;
mod sealed;
mod store;

pub use authority::{
    AuthorityCertificate, CertificateAuthority, Issued, MAX_REQUEST_BYTES, Revocation, request_key,
};
pub use authority_key::RemoteKey;
pub use certificate::{Certificate, MAX_CERTIFICATE_BYTES, RevocationList};
pub use error::PkiError;
pub use identity::{CaFingerprint, MEMBER_SUFFIX, Peer, SERVER_NAME};
pub use keys::{Credentials, TlsKeyPair};
pub use sealed::{MIN_PASSPHRASE, Passphrase, PassphraseError, is_sealed, seal, unseal};
pub use store::{load_certificate, read_key, save_certificate};
