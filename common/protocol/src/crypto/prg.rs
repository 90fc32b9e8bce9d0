//! The pseudo-random generator that masks grow from: AES-256 in counter mode, keyed with
//! the 32-byte seed, counter from zero. A seed is used for one expansion only.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit, consts::U16};
use zeroize::Zeroize;

use super::keys::Seed;

/// Cipher blocks made at a time: 4 KiB, which stay in the first-level cache with the lanes.
const BLOCKS: usize = 256;

/// Words in a cipher block.
const WORDS: usize = 4;

/// An endless stream of uniform 32-bit words grown from one seed, little-endian in each cipher
/// block. Any part of it can be made by itself.
#[derive(Clone)]
pub struct Prg {
    cipher: Aes256,
}

impl Prg {
    /// The stream of `seed`.
    pub fn new(seed: &Seed) -> Self {
        Self {
            cipher: Aes256::new(seed.expose().into()),
        }
    }

    /// Calls `combine(lane, word)` for each lane in order with the stream's words from the one at
    /// `first` on, which must be a multiple of 4.
    pub fn for_each(
        &self,
        first: usize,
        lanes: &mut [u32],
        mut combine: impl FnMut(&mut u32, u32),
    ) {
        debug_assert!(first.is_multiple_of(WORDS));
        let mut counter = (first / WORDS) as u64;
        let mut blocks = [Array::<u8, U16>::default(); BLOCKS];
        for lanes in lanes.chunks_mut(BLOCKS * WORDS) {
            let blocks = &mut blocks[..lanes.len().div_ceil(WORDS)];
            for block in blocks.iter_mut() {
                // 128 bits, most significant first.
                block[..8].fill(0);
                block[8..].copy_from_slice(&counter.to_be_bytes());
                counter += 1;
            }
            self.cipher.encrypt_blocks(blocks);
            let mut fours = lanes.chunks_exact_mut(WORDS);
            for (four, block) in fours.by_ref().zip(blocks.iter()) {
                for (lane, word) in four.iter_mut().zip(words(block)) {
                    combine(lane, word);
                }
            }
            if let Some(last) = blocks.last() {
                for (lane, word) in fours.into_remainder().iter_mut().zip(words(last)) {
                    combine(lane, word);
                }
            }
        }
        for block in &mut blocks {
            block.as_mut_slice().zeroize();
        }
    }
}

fn words(block: &Array<u8, U16>) -> [u32; WORDS] {
    std::array::from_fn(|at| {
        let bytes = &block[at * 4..at * 4 + 4];
        u32::from_le_bytes(bytes.try_into().expect("four of sixteen bytes"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_cut() {
        let seed = Seed::from_bytes([3; 32]);
        let prg = Prg::new(&seed);
        let mut whole = vec![0; 3 * BLOCKS * WORDS + 5];
        prg.for_each(0, &mut whole, |lane, word| *lane = word);
        for size in [4, 1024, 1028] {
            let mut parts = vec![0; whole.len()];
            for (place, part) in parts.chunks_mut(size).enumerate() {
                prg.for_each(place * size, part, |lane, word| *lane = word);
            }
            assert_eq!(whole, parts);
        }
        let mut other = vec![0; 8];
        Prg::new(&Seed::from_bytes([4; 32])).for_each(0, &mut other, |lane, word| *lane = word);
        assert_ne!(whole[..8], other[..]);
    }

    /// AES-256 of the all-zero block under the all-zero key, from FIPS 197's algorithm; the
    /// value is the first entry of NIST's AESAVS GFSbox/KeySbox zero vectors.
    #[test]
    fn the_first_block_is_aes_of_counter_zero() {
        let mut words = [0; 4];
        Prg::new(&Seed::from_bytes([0; 32])).for_each(0, &mut words, |lane, word| *lane = word);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(hex::encode(bytes), "dc95c078a2408989ad48a21492842087");
    }
}
