//! The pseudo-random generator that masks grow from: AES-256 in counter mode, keyed with
//! the 32-byte seed, counter from zero. A seed is used for one expansion only.

use aes::Aes256;
use aes::cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser,
    KeyInit, ParBlocks, consts::U16,
};
use fedlora_vaes::{Aes256Ctr, Combine};
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
pub struct Prg(Cipher);

/// Which code makes the stream.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few, and none moves")]
enum Cipher {
    Vaes(Aes256Ctr),
    Any(Aes256),
}

impl Prg {
    /// The stream of `seed`.
    pub fn new(seed: &Seed) -> Self {
        let key = seed.expose();
        // The library's code is the fastest with AVX-512, and half as fast as this without.
        let vaes = if has_avx512() {
            None
        } else {
            Aes256Ctr::new(key)
        };
        Self(match vaes {
            Some(stream) => Cipher::Vaes(stream),
            None => Cipher::Any(Aes256::new(key.into())),
        })
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
        let mut words = [0; BLOCKS * WORDS];
        for (place, lanes) in lanes.chunks_mut(words.len()).enumerate() {
            let words = &mut words[..lanes.len()];
            self.fill(first + place * BLOCKS * WORDS, words);
            for (lane, word) in lanes.iter_mut().zip(words) {
                each(lane, *word);
            }
        }
        words.zeroize();
    }

    // Not generic: it is compiled here, in the one unit of this crate (workspace `Cargo.toml`), and
    // not in a caller's, where helpers of the cipher's vector code would stay calls.
    #[inline(never)]
    fn combine(&self, first: usize, lanes: &mut [u32], combine: Combine) {
        debug_assert!(first.is_multiple_of(WORDS));
        let counter = (first / WORDS) as u64;
        match &self.0 {
            Cipher::Vaes(stream) => stream.combine(counter, lanes, combine),
            Cipher::Any(cipher) => cipher.encrypt_with_backend(Stream {
                counter,
                lanes,
                combine,
            }),
        }
    }
}

fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
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

    /// AES-256 in counter mode under the key 00 01 .. 1f, as OpenSSL 3 gives it:
    /// `openssl enc -aes-256-ctr -K 0001..1f -iv 00..00` of zeros. Blocks by their counter.
    const OPENSSL: [(usize, &str); 9] = [
        (0, "f29000b62a499fd0a9f39a6add2e7780"),
        (1, "f05d76ae4ab99fe5a6f69b3148c2363d"),
        (63, "6f5eba1e0f6f90f37e66e5f99b5c5ada"),
        (64, "1ff19341edce8e0c8bb343d7b7049423"),
        (255, "09b7d48ec01dec5932da28c489659e9a"),
        (256, "512e5630d1ac5d4f43c8777d6e0f7365"),
        (65535, "695737554fb975a9fd99adc5bfe6881f"),
        (65536, "b22753304d69b57f49d10a62eb01c832"),
        (69999, "26253ea5f154e5d2cf11bccbf317a598"),
    ];

    fn counted() -> Prg {
        Prg::new(&Seed::from_bytes(std::array::from_fn(|at| at as u8)))
    }

    fn hex_of(words: &[u32]) -> String {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        hex::encode(bytes)
    }

    #[test]
    fn the_stream_is_the_one_of_another_implementation() {
        let mut whole = vec![0; WORDS * 70_000];
        counted().fill(0, &mut whole);
        for (block, expected) in OPENSSL {
            let words = block * WORDS..(block + 1) * WORDS;
            assert_eq!(hex_of(&whole[words.clone()]), expected);
            let mut alone = [0; WORDS];
            counted().fill(words.start, &mut alone);
            assert_eq!(hex_of(&alone), expected);
        }
    }

    /// FIPS 197, appendix C.3, and SP 800-38A, F.5.5, first block: the cipher itself, in the
    /// backend at hand. CI runs it with the portable one too and says so in `AES_BACKEND`.
    #[test]
    fn the_cipher_gives_the_known_answers() {
        if std::env::var_os("AES_BACKEND").is_some_and(|backend| backend == "soft") {
            assert!(!aes::hardware_accelerated(), "not the portable backend");
        }
        let block = |text: &str| -> Block<Aes256> {
            let bytes: [u8; 16] = hex::decode(text).unwrap().try_into().unwrap();
            bytes.into()
        };
        let answer = |key: &str, input: &str| {
            let key: [u8; 32] = hex::decode(key).unwrap().try_into().unwrap();
            let mut block = block(input);
            Aes256::new(&key.into()).encrypt_block(&mut block);
            block
        };
        let c3 = answer(
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "00112233445566778899aabbccddeeff",
        );
        assert_eq!(c3, block("8ea2b7ca516745bfeafc49904b496089"));
        let f55 = answer(
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
        );
        let mut encrypted = block("6bc1bee22e409f96e93d7e117393172a");
        for (byte, stream) in encrypted.iter_mut().zip(f55) {
            *byte ^= stream;
        }
        assert_eq!(encrypted, block("601ec313775789a5b7a7f504bbf3d228"));
    }

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_cut() {
        let prg = Prg::new(&Seed::from_bytes([3; 32]));
        let mut whole = vec![0; 3 * BLOCKS * WORDS + 5];
        prg.fill(0, &mut whole);
        for size in [4, 252, 256, 260, 1024] {
            let mut parts = vec![0; whole.len()];
            for (place, part) in parts.chunks_mut(size).enumerate() {
                prg.fill(place * size, part);
            }
            assert_eq!(whole, parts);
        }
        let mut other = vec![0; 8];
        Prg::new(&Seed::from_bytes([4; 32])).fill(0, &mut other);
        assert_ne!(whole[..8], other[..]);
    }

    #[test]
    fn every_way_to_combine_takes_the_same_words() {
        let prg = counted();
        for len in [0, 1, 3, 4, 255, 256, 257, 3001] {
            let mut words = vec![0; len];
            prg.fill(8, &mut words);
            let before: Vec<u32> = (0..len as u32)
                .map(|k| k.wrapping_mul(0x9e37_79b9))
                .collect();
            let zip = |combine: fn(u32, u32) -> u32| -> Vec<u32> {
                let pairs = before.iter().zip(&words);
                pairs.map(|(lane, word)| combine(*lane, *word)).collect()
            };
            let mut lanes = before.clone();
            prg.add(8, &mut lanes);
            assert_eq!(lanes, zip(u32::wrapping_add));
            lanes.clone_from(&before);
            prg.subtract(8, &mut lanes);
            assert_eq!(lanes, zip(u32::wrapping_sub));
            lanes.clone_from(&before);
            prg.for_each(8, &mut lanes, |lane, word| *lane ^= word);
            assert_eq!(lanes, zip(|lane, word| lane ^ word));
        }
    }
}
