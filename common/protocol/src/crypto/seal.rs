//! Sealing a message for one peer: ChaCha20-Poly1305 (RFC 8439) under a key that serves
//! one message only, so the nonce is fixed.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use zeroize::Zeroizing;

use super::keys::Seed;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = 16;

/// A key for sealing exactly one message: consumed by use.
pub struct OneTimeKey(Seed);

impl OneTimeKey {
    /// Takes a seed derived for one sender, one recipient and one transcript.
    pub fn new(seed: Seed) -> Self {
        Self(seed)
    }

    /// Encrypts `message`, bound to `associated` data that is not sent along.
    pub fn seal(self, message: &[u8], associated: &[u8]) -> Vec<u8> {
        let payload = Payload {
            msg: message,
            aad: associated,
        };
        self.cipher()
            .encrypt(&Nonce::default(), payload)
            .expect("encryption fails only past 256 GiB")
    }

    /// Opens what the other holder of the key sealed.
    ///
    /// # Errors
    /// [`OpenError`] where the bytes were sealed under another key, for other associated
    /// data, or changed since.
    pub fn open(self, sealed: &[u8], associated: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let payload = Payload {
            msg: sealed,
            aad: associated,
        };
        self.cipher()
            .decrypt(&Nonce::default(), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenError)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(self.0.expose().into())
    }
}

/// A sealed message that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sealed message does not open: it was made for another transcript or changed on its way"
)]
pub struct OpenError;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> OneTimeKey {
        OneTimeKey::new(Seed::from_bytes([9; 32]))
    }

    #[test]
    fn opens_only_unchanged_and_in_its_context() {
        let sealed = key().seal(b"share", b"a to b");
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert_eq!(key().open(&sealed, b"a to b").unwrap().as_slice(), b"share");
        assert!(key().open(&sealed, b"a to c").is_err());
        assert!(
            OneTimeKey::new(Seed::from_bytes([8; 32]))
                .open(&sealed, b"a to b")
                .is_err()
        );
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(key().open(&changed, b"a to b").is_err(), "byte {index}");
        }
        assert!(key().open(&sealed[..OVERHEAD - 1], b"a to b").is_err());
    }
}
