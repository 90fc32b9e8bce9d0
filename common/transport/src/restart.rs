//! What lets a server that was started again end the connections of its former life. A client then
//! knows at its next packet that its connection is gone, instead of after half a minute of silence:
//! a stateless reset (RFC 9000, section 10.3), whose token only the same server can give.

use std::fmt;
use std::sync::Arc;

use quinn::EndpointConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn_proto::HashedConnectionIdGenerator;
use zeroize::Zeroizing;

/// A server's secret that stays the same when it is started again.
pub struct RestartSecret(Zeroizing<[u8; 32]>);

impl RestartSecret {
    /// Derived from another secret of the server's, of which it tells nothing.
    pub fn derive(secret: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key(
            "fedlora 1 server restart",
            secret,
        )))
    }

    /// An endpoint whose connection identifiers and reset tokens follow from the secret.
    pub(crate) fn endpoint_config(&self) -> EndpointConfig {
        let reset = blake3::derive_key("fedlora 1 stateless reset", self.0.as_slice());
        let connections = blake3::derive_key("fedlora 1 connection identifiers", self.0.as_slice());
        let first = *connections.first_chunk().expect("32 bytes");
        let key = u64::from_le_bytes(first);
        let mut config = EndpointConfig::new(Arc::new(ResetKey(reset)));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
        config
    }
}

impl fmt::Debug for RestartSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestartSecret(..)")
    }
}

/// Keyed BLAKE3 in the place of an HMAC.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(tag.as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let Ok(signature) = <[u8; blake3::OUT_LEN]>::try_from(signature) else {
            return Err(CryptoError);
        };
        // Compared in constant time.
        match blake3::keyed_hash(&self.0, data) == signature {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_by_its_own_key_alone() {
        let [one, other] = [ResetKey([1; 32]), ResetKey([2; 32])];
        let mut token = [0; 32];
        one.sign(b"identifier", &mut token);
        assert!(one.verify(b"identifier", &token).is_ok());
        assert!(one.verify(b"identifier", &token[..16]).is_err());
        assert!(one.verify(b"another", &token).is_err());
        assert!(other.verify(b"identifier", &token).is_err());
        let secret = RestartSecret::derive(&[7; 32]);
        assert_eq!(format!("{secret:?}"), "RestartSecret(..)");
    }
}
