//! Ed25519 identity keys and signatures over digests.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use fedlora_common::digest::{Digest, DigestWriter};

/// A member's or the aggregator's long-term signing key. Wiped when dropped.
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// A fresh random key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_bytes(&seed)
    }

    /// The key behind 32 secret bytes (RFC 8032's private key).
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The secret bytes, to be written to the owner's key file and nowhere else.
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half, which verifies this key's signatures.
    pub fn public(&self) -> IdentityPublic {
        IdentityPublic(self.0.verifying_key().to_bytes())
    }

    /// Signs a digest. What the digest is of, its [`DigestWriter`] context says, so a
    /// signature for one purpose cannot serve another.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature(self.0.sign(digest.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "IdentityKey({}, ..)",
            self.public().fingerprint().short()
        )
    }
}

/// The public half of an [`IdentityKey`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityPublic([u8; 32]);

impl IdentityPublic {
    /// Wraps public key bytes. Bytes that are not a curve point verify no signature.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key's bytes (RFC 8032).
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What people compare, and the roster shows.
    pub fn fingerprint(&self) -> Digest {
        let mut writer = DigestWriter::new("fedlora 1 identity key fingerprint");
        writer.raw(&self.0);
        writer.finish()
    }

    /// Checks a signature strictly: no small-order keys, no malleable encodings.
    ///
    /// # Errors
    /// [`BadSignature`] where it is not this key's signature of `digest`.
    pub fn verify(&self, digest: &Digest, signature: &Signature) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(digest.as_bytes(), &signature)
            .map_err(|_| BadSignature)
    }
}

impl fmt::Debug for IdentityPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityPublic({})", self.fingerprint().short())
    }
}

impl Serialize for IdentityPublic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Digest::from_bytes(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for IdentityPublic {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Digest::deserialize(deserializer).map(|bytes| Self(*bytes.as_bytes()))
    }
}

/// An Ed25519 signature of a digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps signature bytes; whether they verify is [`IdentityPublic::verify`]'s matter.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes of the signature (RFC 8032).
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(&self.0[..4]))
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.serialize_str(&hex::encode(self.0));
        }
        (
            <[u8; 32]>::try_from(&self.0[..32]).expect("half of 64 bytes"),
            <[u8; 32]>::try_from(&self.0[32..]).expect("half of 64 bytes"),
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; 64];
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            hex::decode_to_slice(&text, &mut bytes)
                .map_err(|_| serde::de::Error::custom("a signature is 128 hexadecimal digits"))?;
        } else {
            let (low, high) = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
            bytes[..32].copy_from_slice(&low);
            bytes[32..].copy_from_slice(&high);
        }
        Ok(Self(bytes))
    }
}

/// A signature that is not the key's over what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;

    #[test]
    fn a_signature_is_of_one_key_and_one_digest() {
        let (key, other) = (
            IdentityKey::random(&mut os_rng()),
            IdentityKey::random(&mut os_rng()),
        );
        let digest = Digest::of("test", b"x");
        let signature = key.sign(&digest);
        key.public().verify(&digest, &signature).unwrap();
        assert!(other.public().verify(&digest, &signature).is_err());
        assert!(
            key.public()
                .verify(&Digest::of("test", b"y"), &signature)
                .is_err()
        );
        let mut forged = *signature.as_bytes();
        forged[40] ^= 1;
        assert!(
            key.public()
                .verify(&digest, &Signature::from_bytes(forged))
                .is_err()
        );
    }

    #[test]
    fn a_small_order_key_verifies_nothing() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        // R = the identity point, s = 0 satisfies the cofactored equation for such a key.
        let mut trivial = [0; 64];
        trivial[0] = 1;
        let key = IdentityPublic::from_bytes(identity_point);
        assert!(
            key.verify(&Digest::of("t", b""), &Signature::from_bytes(trivial))
                .is_err()
        );
    }

    #[test]
    fn signatures_round_trip_as_json() {
        let signature = IdentityKey::from_bytes(&[7; 32]).sign(&Digest::of("t", b""));
        let text = serde_json::to_string(&signature).unwrap();
        assert_eq!(serde_json::from_str::<Signature>(&text).unwrap(), signature);
        assert!(serde_json::from_str::<Signature>("\"ab\"").is_err());
    }
}
