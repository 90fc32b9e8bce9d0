//! The pseudo-random generator that masks grow from: AES-256 in counter mode, keyed with
//! the 32-byte seed, counter from zero. A seed is used for one expansion only.

use aes::Aes256;
use aes::cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
    KeyInit, ParBlocks, consts::U16,
};
use zeroize::{Zeroize, optimization_barrier};

use super::keys::Seed;

/// Cipher blocks made at a time: 1 KiB, which stays in the first-level cache with the lanes, and as
/// many as the widest vector code of the cipher makes at once.
const BLOCKS: usize = 64;

/// Words in a cipher block.
const WORDS: usize = 4;

/// An endless stream of uniform 32-bit words grown from one seed, little-endian in each cipher
/// block. Any part of it can be made by itself, from a multiple of 4 words on.
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

    /// Sets each lane to the stream's word, from the one at `first` on, a multiple of 4.
    pub fn fill(&self, first: usize, lanes: &mut [u32]) {
        self.combine(first, lanes, Combine::Set);
    }

    /// Adds the stream's words from the one at `first` on, a multiple of 4, modulo 2^32.
    pub fn add(&self, first: usize, lanes: &mut [u32]) {
        self.combine(first, lanes, Combine::Add);
    }

    /// Subtracts the stream's words from the one at `first` on, a multiple of 4, modulo 2^32.
    pub fn subtract(&self, first: usize, lanes: &mut [u32]) {
        self.combine(first, lanes, Combine::Subtract);
    }

    /// Calls `each(lane, word)` for each lane in order with the stream's words from the one at
    /// `first` on, a multiple of 4. The other ways to combine are several times as fast.
    pub fn for_each(&self, first: usize, lanes: &mut [u32], mut each: impl FnMut(&mut u32, u32)) {
        let mut words = [0; 1024];
        for (place, lanes) in lanes.chunks_mut(words.len()).enumerate() {
            let words = &mut words[..lanes.len()];
            self.fill(first + place * 1024, words);
            for (lane, word) in lanes.iter_mut().zip(words) {
                each(lane, *word);
            }
        }
        words.zeroize();
    }

    // The one place that runs the cipher, and one instance of it, not generic: the cipher's
    // vector code calls helpers that compilers inline where they have a single caller, and that
    // take longer than the cipher where they have several.
    #[inline(never)]
    fn combine(&self, first: usize, lanes: &mut [u32], combine: Combine) {
        debug_assert!(first.is_multiple_of(WORDS));
        self.cipher.encrypt_with_backend(Stream {
            counter: (first / WORDS) as u64,
            lanes,
            combine,
        });
    }
}

/// What becomes of a lane and the stream's word.
#[derive(Debug, Clone, Copy)]
enum Combine {
    Set,
    Add,
    Subtract,
}

/// A part of the stream on its way to the lanes. Its code becomes part of the cipher's, compiled
/// for the same instructions.
struct Stream<'a> {
    counter: u64,
    lanes: &'a mut [u32],
    combine: Combine,
}

impl BlockSizeUser for Stream<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Stream<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(mut self, backend: &B) {
        let mut blocks = [Block::<Aes256>::default(); BLOCKS];
        for lanes in self.lanes.chunks_mut(BLOCKS * WORDS) {
            let blocks = &mut blocks[..lanes.len().div_ceil(WORDS)];
            for block in blocks.iter_mut() {
                // 128 bits, most significant first.
                block.0 = u128::from(self.counter).to_be_bytes();
                self.counter += 1;
            }
            let (batches, tail) = ParBlocks::<B>::slice_as_chunks_mut(blocks);
            for batch in batches {
                backend.encrypt_par_blocks_inplace(batch);
            }
            backend.encrypt_tail_blocks_inplace(tail);
            match self.combine {
                Combine::Set => each(lanes, blocks, |_, word| word),
                Combine::Add => each(lanes, blocks, u32::wrapping_add),
                Combine::Subtract => each(lanes, blocks, u32::wrapping_sub),
            }
        }
        for block in &mut blocks {
            block.0 = [0; 16];
        }
        optimization_barrier(&blocks);
    }
}

#[inline(always)]
fn each(lanes: &mut [u32], blocks: &[Block<Aes256>], combine: impl Fn(u32, u32) -> u32) {
    let (fours, rest) = lanes.as_chunks_mut::<WORDS>();
    let whole = fours.len();
    for (lanes, block) in fours.iter_mut().zip(blocks) {
        let [a, b, c, d] = *lanes;
        let [e, f, g, h] = words(block);
        *lanes = [combine(a, e), combine(b, f), combine(c, g), combine(d, h)];
    }
    if let Some(block) = blocks.get(whole) {
        for (lane, word) in rest.iter_mut().zip(words(block)) {
            *lane = combine(*lane, word);
        }
    }
}

#[inline(always)]
fn words(block: &Block<Aes256>) -> [u32; WORDS] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = block.0;
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_le_bytes)
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
