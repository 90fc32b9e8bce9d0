//! The pseudo-random generator that masks grow from: AES-256 in counter mode, keyed with
//! the 32-byte seed, counter from zero. A seed is used for one expansion only.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroize;

use super::keys::Seed;

/// Words made at a time: 16 KiB, which stays in the first-level cache.
const BLOCK_WORDS: usize = 4096;

/// An endless stream of uniform 32-bit words grown from one seed.
pub struct Prg {
    cipher: Ctr128BE<Aes256>,
    block: Vec<u8>,
}

impl Prg {
    /// Starts the stream of `seed`.
    pub fn new(seed: &Seed) -> Self {
        Self {
            cipher: Ctr128BE::<Aes256>::new(seed.expose().into(), &[0; 16].into()),
            block: vec![0; BLOCK_WORDS * 4],
        }
    }

    /// Calls `combine(lane, word)` for each lane in order with the stream's next word
    /// (little-endian).
    pub fn for_each(&mut self, lanes: &mut [u32], mut combine: impl FnMut(&mut u32, u32)) {
        for chunk in lanes.chunks_mut(BLOCK_WORDS) {
            let bytes = &mut self.block[..chunk.len() * 4];
            bytes.fill(0);
            self.cipher.apply_keystream(bytes);
            for (lane, word) in chunk.iter_mut().zip(bytes.chunks_exact(4)) {
                combine(
                    lane,
                    u32::from_le_bytes(word.try_into().expect("chunks of four")),
                );
            }
        }
    }
}

impl Drop for Prg {
    fn drop(&mut self) {
        self.block.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_cut() {
        let seed = Seed::from_bytes([3; 32]);
        let mut whole = vec![0; 3 * BLOCK_WORDS + 5];
        Prg::new(&seed).for_each(&mut whole, |lane, word| *lane = word);
        let mut parts = vec![0; whole.len()];
        let mut prg = Prg::new(&seed);
        for part in parts.chunks_mut(BLOCK_WORDS) {
            prg.for_each(part, |lane, word| *lane = word);
        }
        assert_eq!(whole, parts);
        let mut other = vec![0; 8];
        Prg::new(&Seed::from_bytes([4; 32])).for_each(&mut other, |lane, word| *lane = word);
        assert_ne!(whole[..8], other[..]);
    }

    /// AES-256 of the all-zero block under the all-zero key, from FIPS 197's algorithm; the
    /// value is the first entry of NIST's AESAVS GFSbox/KeySbox zero vectors.
    #[test]
    fn the_first_block_is_aes_of_counter_zero() {
        let mut words = [0; 4];
        Prg::new(&Seed::from_bytes([0; 32])).for_each(&mut words, |lane, word| *lane = word);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(hex::encode(bytes), "dc95c078a2408989ad48a21492842087");
    }
}
