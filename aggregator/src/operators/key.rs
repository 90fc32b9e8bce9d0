//! An operator's own key: Ed25519, in encrypted PKCS #8 as the authority's is, so that openssl reads it too.

use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic};
use fedlora_transport::pki::{Passphrase, PkiError, seal, unseal};
use zeroize::Zeroizing;

use crate::ca::{CaError, io_error};

/// What stands before the 32 secret bytes in PKCS #8 (RFC 8410, section 7).
const PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// An operator's key, opened.
#[derive(Debug)]
pub struct OperatorKey(pub(super) IdentityKey);

impl OperatorKey {
    /// Makes a key and seals it into a new file.
    ///
    /// # Errors
    /// A file that is there, or cannot be written.
    pub fn make(path: &Path, passphrase: &Passphrase) -> Result<IdentityPublic, CaError> {
        if path.exists() {
            let there = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(io_error(path, there));
        }
        let key = IdentityKey::random(&mut os_rng());
        let secret = key.expose();
        let der = Zeroizing::new([&PREFIX[..], secret.as_slice()].concat());
        let base64 = Zeroizing::new(BASE64.encode(&der));
        let pem = Zeroizing::new(format!("{BEGIN}\n{}\n{END}\n", *base64));
        let sealed = seal(&pem, passphrase, &mut os_rng())?;
        let written = write_atomic(path, sealed.as_bytes(), Access::Owner);
        written.map_err(|error| io_error(path, error))?;
        Ok(key.public())
    }

    /// Opens a key.
    ///
    /// # Errors
    /// [`CaError::WrongPassphrase`]; a file that cannot be read, or holds no such key.
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, CaError> {
        let sealed = fs::read_to_string(path).map_err(|error| io_error(path, error))?;
        let pem = unseal(&sealed, passphrase).map_err(|error| match error {
            PkiError::WrongPassphrase => CaError::WrongPassphrase {
                path: path.to_owned(),
            },
            error => error.into(),
        })?;
        let base64: Zeroizing<String> = Zeroizing::new(
            pem.lines()
                .filter(|line| !line.starts_with("-----"))
                .collect(),
        );
        let der = Zeroizing::new(BASE64.decode(base64.as_bytes()).unwrap_or_default());
        let seed = der.strip_prefix(&PREFIX[..]);
        let seed = seed.and_then(|seed| <&[u8; 32]>::try_from(seed).ok());
        let seed = seed.ok_or(CaError::Pki(PkiError::Key))?;
        Ok(Self(IdentityKey::from_bytes(seed)))
    }

    /// The public half.
    pub fn public(&self) -> IdentityPublic {
        self.0.public()
    }
}
