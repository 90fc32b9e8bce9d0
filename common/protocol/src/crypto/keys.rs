//! 32-byte seeds.

use std::fmt;

use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;

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
    }
}
