//! X25519 (RFC 7748), with the points refused that add no secret of their own.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The public half of an X25519 key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PointPublic(pub [u8; 32]);

impl PointPublic {
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
        PointSecret::from_bytes([1; 32]).agree(self).is_some()
    }

    fn is_canonical(&self) -> bool {
        let mut bytes = self.0;
        bytes.reverse();
        bytes < Self::PRIME
    }
}

/// The secret half of an X25519 key pair. Wiped when dropped.
pub struct PointSecret(x25519_dalek::StaticSecret);

impl PointSecret {
    /// Takes 32 secret bytes, clamped as RFC 7748 says.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(bytes))
    }

    /// The public half.
    pub fn public(&self) -> PointPublic {
        PointPublic(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// The shared secret with the holder of `theirs`; `None` where that is a point of small order,
    /// with which it would be known to everybody (RFC 7748, section 6.1), or another encoding of a
    /// point than the canonical.
    pub fn agree(&self, theirs: &PointPublic) -> Option<Zeroizing<[u8; 32]>> {
        let point = x25519_dalek::PublicKey::from(theirs.0);
        let shared = self.0.diffie_hellman(&point);
        (theirs.is_canonical() && shared.was_contributory())
            .then(|| Zeroizing::new(shared.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        hex::decode(hex).unwrap().try_into().unwrap()
    }

    /// RFC 7748, section 6.1.
    #[test]
    fn the_rfcs_example() {
        let alice = PointPublic(bytes(
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ));
        let bob = PointSecret::from_bytes(bytes(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
        assert_eq!(bob.public().0, bytes(public));
        let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        assert_eq!(*bob.agree(&alice).unwrap(), bytes(shared));
    }

    #[test]
    fn small_order_and_non_canonical_points_are_refused() {
        let secret = PointSecret::from_bytes([5; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        // The prime plus one is the point 1 again; the highest bit is not part of a point.
        let mut again = PointPublic::PRIME;
        again.reverse();
        again[0] += 1;
        let mut high_bit = secret.public().0;
        high_bit[31] |= 0x80;
        assert!(secret.public().is_sound());
        for point in [[0; 32], one, again, high_bit] {
            assert!(!PointPublic(point).is_sound());
            assert!(secret.agree(&PointPublic(point)).is_none());
        }
    }
}
