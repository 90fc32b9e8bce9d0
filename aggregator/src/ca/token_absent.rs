//! PKCS #11 in a program that was built without it.

use fedlora_transport::pki::RemoteKey;

use super::TokenError;
use crate::config::Pkcs11Config;

/// A key pair in a token; there is none here.
#[derive(Debug)]
pub(super) enum TokenKey {}

impl TokenKey {
    /// # Errors
    /// [`TokenError::NotBuilt`], always.
    pub(super) fn find(_config: &Pkcs11Config) -> Result<Self, TokenError> {
        Err(TokenError::NotBuilt)
    }
}

impl RemoteKey for TokenKey {
    fn public_key(&self) -> &[u8] {
        match *self {}
    }

    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, String> {
        match *self {}
    }
}
