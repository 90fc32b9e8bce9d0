//! X25519 key agreement and 32-byte seeds.

use std::fmt;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use fedlora_common::digest::{Digest, DigestWriter};

/// 32 secret bytes that a mask grows from. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A fresh random seed.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// Takes seed bytes, for instance those recovered from shares.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 secret bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// A commitment to the seed: binding because BLAKE3 is collision resistant, hiding
    /// because the seed carries 256 bits of entropy.
    pub fn commitment(&self) -> Digest {
        let mut writer = DigestWriter::new("fedlora 1 self-mask seed commitment");
        writer.raw(&self.0);
        writer.finish()
    }

    /// Whether this is the seed behind `commitment`.
    pub fn opens(&self, commitment: &Digest) -> bool {
        self.commitment()
            .as_bytes()
            .ct_eq(commitment.as_bytes())
            .into()
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The public half of an X25519 key pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgreementPublic(pub [u8; 32]);

impl AgreementPublic {
    /// 2^255 - 19, the field's prime, most significant byte first.
    const PRIME: [u8; 32] = {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (0x7f, 0xed);
        bytes
    };

    /// Whether this is the one encoding of a point that adds a secret of its own: below the
    /// field's prime, so that no two keys are one point, and not of small order.
    pub fn is_sound(&self) -> bool {
        // Any secret is a multiple of the cofactor, so any secret tells small orders apart.
        self.is_canonical()
            && x25519_dalek::StaticSecret::from([1; 32])
                .diffie_hellman(&x25519_dalek::PublicKey::from(self.0))
                .was_contributory()
    }

    fn is_canonical(&self) -> bool {
        let mut bytes = self.0;
        bytes.reverse();
        bytes < Self::PRIME
    }
}

impl fmt::Debug for AgreementPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgreementPublic({})", hex::encode(&self.0[..4]))
    }
}

/// The secret half of an X25519 key pair, made for one round. Wiped when dropped.
pub struct AgreementSecret(x25519_dalek::StaticSecret);

impl AgreementSecret {
    /// A fresh random key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(x25519_dalek::StaticSecret::random_from_rng(rng))
    }

    /// Takes key bytes, for instance those recovered from shares.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(bytes))
    }

    /// The secret bytes, to be shared among the members and nothing else.
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half, which other members agree with.
    pub fn public(&self) -> AgreementPublic {
        AgreementPublic(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// Agrees on a key with the holder of `theirs` and derives a seed from it for one purpose.
    ///
    /// `context` names the purpose; `binding` is what both sides must have in common for
    /// their seeds to be equal (the transcript, the pair's places).
    ///
    /// # Errors
    /// [`AgreementError`] where `theirs` is a point of small order, so that it adds no secret
    /// of its own (RFC 7748, section 6.1), or another encoding of a point than the canonical.
    pub fn agree(
        &self,
        theirs: &AgreementPublic,
        context: &'static str,
        binding: &Digest,
    ) -> Result<Seed, AgreementError> {
        if !theirs.is_canonical() {
            return Err(AgreementError);
        }
        let shared = self
            .0
            .diffie_hellman(&x25519_dalek::PublicKey::from(theirs.0));
        if !shared.was_contributory() {
            return Err(AgreementError);
        }
        let mut material = Zeroizing::new([0; 64]);
        material[..32].copy_from_slice(shared.as_bytes());
        material[32..].copy_from_slice(binding.as_bytes());
        Ok(Seed(blake3::derive_key(context, material.as_slice())))
    }
}

impl fmt::Debug for AgreementSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementSecret(..)")
    }
}

/// A public key of small order, with which the agreed key would be known to everybody, or one
/// that is not the canonical encoding of its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the X25519 key is of small order, so that the agreed secret would be known to everybody, \
     or not in canonical form"
)]
pub struct AgreementError;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;

    #[test]
    fn both_sides_agree_and_the_binding_counts() {
        let (a, b) = (
            AgreementSecret::random(&mut os_rng()),
            AgreementSecret::random(&mut os_rng()),
        );
        let (one, two) = (Digest::of("test", b"1"), Digest::of("test", b"2"));
        let seed = a.agree(&b.public(), "test", &one).unwrap();
        assert_eq!(
            seed.expose(),
            b.agree(&a.public(), "test", &one).unwrap().expose()
        );
        assert_ne!(
            seed.expose(),
            b.agree(&a.public(), "test", &two).unwrap().expose()
        );
        assert_ne!(
            seed.expose(),
            b.agree(&a.public(), "other", &one).unwrap().expose()
        );
    }

    #[test]
    fn small_order_and_non_canonical_keys_are_refused() {
        let secret = AgreementSecret::random(&mut os_rng());
        let mut one = [0; 32];
        one[0] = 1;
        // The prime plus one is the point 1 again; the highest bit is not part of a point.
        let mut again = AgreementPublic::PRIME;
        again.reverse();
        again[0] += 1;
        let mut high_bit = secret.public().0;
        high_bit[31] |= 0x80;
        assert!(secret.public().is_sound());
        for point in [[0; 32], one, again, high_bit] {
            assert!(!AgreementPublic(point).is_sound());
            let refused = secret.agree(&AgreementPublic(point), "test", &Digest::of("t", b""));
            assert_eq!(refused.unwrap_err(), AgreementError);
        }
    }

    #[test]
    fn commitments_open_to_their_seed_alone() {
        let seed = Seed::random(&mut os_rng());
        assert!(seed.opens(&seed.commitment()));
        assert!(!Seed::random(&mut os_rng()).opens(&seed.commitment()));
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let seed = Seed::from_bytes([0xab; 32]);
        assert!(!format!("{seed:?}").contains("171"));
        assert!(!format!("{seed:?}").to_lowercase().contains("ab,"));
        assert_eq!(
            format!("{:?}", AgreementSecret::from_bytes([1; 32])),
            "AgreementSecret(..)"
        );
    }
}
