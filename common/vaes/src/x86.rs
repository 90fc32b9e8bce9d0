//! The instructions' code. Intrinsics are safe in a function that is compiled for them; to call one
//! of these is not, and stands in [`Aes256Ctr`] alone.

use std::arch::x86_64::*;
use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Combine;

/// Round keys of AES-256 (FIPS 197: Nr + 1).
const ROUND_KEYS: usize = 15;

/// Registers of two blocks that are encrypted at a time. An instruction takes several cycles, and
/// one or two start in each: as many as that, and the registers suffice.
const REGISTERS: usize = 8;

/// Lanes in a register.
const WIDTH: usize = 8;

/// Lanes that are combined at a time.
const BATCH: usize = REGISTERS * WIDTH;

/// An endless stream of blocks under one key: the encrypted numbers from 0 on, 128 bits with the
/// most significant byte first. As 32-bit words, it is little-endian in each block.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Aes256Ctr {
    round_keys: [u128; ROUND_KEYS],
}

impl Aes256Ctr {
    /// The stream of `key`. `None` where the processor lacks the instructions.
    #[expect(unsafe_code, reason = "calls code for instructions that are there")]
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        if !available() {
            return None;
        }
        // SAFETY: `expand` is unsafe to call only where the processor lacks the features that it
        // is compiled for. All are among those of `available`.
        let round_keys = unsafe { expand(key) };
        Some(Self { round_keys })
    }

    /// Combines lanes with the stream's words, from block number `block` on.
    #[expect(unsafe_code, reason = "calls code for instructions that are there")]
    pub fn combine(&self, block: u64, lanes: &mut [u32], combine: Combine) {
        // SAFETY: `combine_all` is unsafe to call only where the processor lacks the features that
        // it is compiled for. All are among those of `available`, which held when `self` was made:
        // its field is private, and no other function makes one.
        unsafe { combine_all(&self.round_keys, block, lanes, combine) }
    }
}

impl fmt::Debug for Aes256Ctr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aes256Ctr")
    }
}

/// Whether the processor, and the system, have all that the functions below are compiled for.
fn available() -> bool {
    is_x86_feature_detected!("sse2")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("vaes")
}

/// The key expansion of FIPS 197, section 5.2, for Nk = 8.
#[target_feature(enable = "sse2,aes")]
fn expand(key: &[u8; 32]) -> [u128; ROUND_KEYS] {
    let [first, second]: [__m128i; 2] = bytemuck::cast(*key);
    let mut keys = [_mm_setzero_si128(); ROUND_KEYS];
    (keys[0], keys[1]) = (first, second);
    keys[2] = even::<0x01>(keys[0], keys[1]);
    keys[3] = odd(keys[1], keys[2]);
    keys[4] = even::<0x02>(keys[2], keys[3]);
    keys[5] = odd(keys[3], keys[4]);
    keys[6] = even::<0x04>(keys[4], keys[5]);
    keys[7] = odd(keys[5], keys[6]);
    keys[8] = even::<0x08>(keys[6], keys[7]);
    keys[9] = odd(keys[7], keys[8]);
    keys[10] = even::<0x10>(keys[8], keys[9]);
    keys[11] = odd(keys[9], keys[10]);
    keys[12] = even::<0x20>(keys[10], keys[11]);
    keys[13] = odd(keys[11], keys[12]);
    keys[14] = even::<0x40>(keys[12], keys[13]);
    bytemuck::cast(keys)
}

/// The key after `last`, two after `before`, with a round constant.
#[target_feature(enable = "sse2,aes")]
fn even<const CONSTANT: i32>(before: __m128i, last: __m128i) -> __m128i {
    let mixed = _mm_aeskeygenassist_si128::<CONSTANT>(last);
    _mm_xor_si128(summed(before), _mm_shuffle_epi32::<0b11_11_11_11>(mixed))
}

/// The key after `last`, two after `before`, without one.
#[target_feature(enable = "sse2,aes")]
fn odd(before: __m128i, last: __m128i) -> __m128i {
    let mixed = _mm_aeskeygenassist_si128::<0>(last);
    _mm_xor_si128(summed(before), _mm_shuffle_epi32::<0b10_10_10_10>(mixed))
}

/// Each 32-bit word, and all before it, by exclusive or.
#[target_feature(enable = "sse2")]
fn summed(words: __m128i) -> __m128i {
    let two = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
    _mm_xor_si128(two, _mm_slli_si128::<8>(two))
}

#[target_feature(enable = "avx2,vaes")]
fn combine_all(
    round_keys: &[u128; ROUND_KEYS],
    mut block: u64,
    lanes: &mut [u32],
    combine: Combine,
) {
    // Loops, no closures: a library's function that calls one is not compiled for the instructions.
    let mut keys = [_mm256_setzero_si256(); ROUND_KEYS];
    for (both, key) in keys.iter_mut().zip(round_keys) {
        *both = _mm256_broadcastsi128_si256(bytemuck::cast(*key));
    }
    let (batches, rest) = lanes.as_chunks_mut::<BATCH>();
    for lanes in batches {
        combine_batch(&keys, block, lanes, combine);
        block += (BATCH / 4) as u64;
    }
    if !rest.is_empty() {
        let mut lanes = [0; BATCH];
        lanes[..rest.len()].copy_from_slice(rest);
        combine_batch(&keys, block, &mut lanes, combine);
        rest.copy_from_slice(&lanes[..rest.len()]);
        lanes.zeroize();
    }
}

#[inline]
#[target_feature(enable = "avx2,vaes")]
fn combine_batch(
    keys: &[__m256i; ROUND_KEYS],
    block: u64,
    lanes: &mut [u32; BATCH],
    combine: Combine,
) {
    let [whitening, rounds @ .., last] = keys;
    let mut state = [*whitening; REGISTERS];
    let mut number = block;
    for state in &mut state {
        // Most significant byte first: the number's bytes are the upper half's.
        let counters = [
            0,
            number.swap_bytes(),
            0,
            number.wrapping_add(1).swap_bytes(),
        ];
        *state = _mm256_xor_si256(*state, bytemuck::cast(counters));
        number = number.wrapping_add(2);
    }
    for key in rounds {
        for state in &mut state {
            *state = _mm256_aesenc_epi128(*state, *key);
        }
    }
    let (parts, _) = lanes.as_chunks_mut::<WIDTH>();
    for (part, state) in parts.iter_mut().zip(state) {
        let words = _mm256_aesenclast_epi128(state, *last);
        let before = bytemuck::cast(*part);
        *part = bytemuck::cast(match combine {
            Combine::Set => words,
            Combine::Add => _mm256_add_epi32(before, words),
            Combine::Subtract => _mm256_sub_epi32(before, words),
        });
    }
}
