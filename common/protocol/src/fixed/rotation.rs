//! The randomised Hadamard rotation, which spreads a delta evenly over its coordinates, so that
//! each lane's range can be about the norm over the root of their number and not the norm itself.
//!
//! Suresh, Yu, Kumar, McMahan, "Distributed Mean Estimation with Limited Communication", ICML
//! 2017, section 3: with D a diagonal of random signs and H the Hadamard matrix of size B,
//! `y = H D x / sqrt(B)` keeps the norm, and each coordinate of y is close to normal with variance
//! `|x|^2 / B`. The signs are public, drawn from the digest of M0.
//!
//! A vector is cut into blocks of [`MAX_BLOCK`] coordinates; what is left at the end is cut into
//! descending powers of two, so that nothing is padded.

use std::ops::Range;
#[cfg(feature = "simulation")]
use std::sync::atomic::{AtomicBool, Ordering};

use fedlora_common::digest::Digest;
use pulp::{Arch, Simd, with_simd};

use crate::crypto::keys::Seed;
use crate::crypto::prg::Prg;

/// The largest block: 65,536 coordinates, which stay in a core's second-level cache.
pub(super) const MAX_BLOCK: usize = 1 << 16;

/// The rotation of one attempt at a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotation(Digest);

#[cfg(feature = "simulation")]
static REPEATED: AtomicBool = AtomicBool::new(false);

/// Makes all rotations of this process the same from now on, so that a simulation, whose keys and
/// run differ each time, can repeat itself bit for bit. No program that a member runs has this.
#[cfg(feature = "simulation")]
pub fn repeat_rotations() {
    REPEATED.store(true, Ordering::Relaxed);
}

impl Rotation {
    /// The rotation of the attempt whose M0 has the digest `open`.
    pub(super) fn of(open: &Digest) -> Self {
        #[cfg(feature = "simulation")]
        if REPEATED.load(Ordering::Relaxed) {
            return Self(Digest::of("fedlora 1 simulated rotation signs", b""));
        }
        Self(Digest::of("fedlora 1 rotation signs", open.as_bytes()))
    }

    /// Rotates a segment in place, without the factors 1 / sqrt(B): block by block `H D x`. `first`
    /// is the place of its first coordinate in the vector, a multiple of [`SEGMENT`].
    pub(super) fn forward(self, first: usize, values: &mut [f32]) {
        self.flip_signs(first, values);
        hadamard_blocks(values);
    }

    /// Undoes [`Rotation::forward`], without the factors 1 / sqrt(B): block by block `D H y`.
    pub(super) fn inverse(self, first: usize, values: &mut [f32]) {
        hadamard_blocks(values);
        self.flip_signs(first, values);
    }

    /// Flips the sign of each coordinate whose bit is set in the stream, lowest bit first.
    fn flip_signs(self, first: usize, values: &mut [f32]) {
        let prg = Prg::new(&Seed::from_bytes(*self.0.as_bytes()));
        let mut signs = [0; NEAR / 32];
        for (place, values) in values.chunks_mut(NEAR).enumerate() {
            let signs = &mut signs[..values.len().div_ceil(32)];
            prg.fill((first + place * NEAR) / 32, signs);
            flip(values, signs);
        }
    }
}

/// Flips the sign of each value whose bit is set, lowest bit of each word first.
#[with_simd(flip = Arch::new())]
#[inline(always)]
fn flip_with_simd<'a, S: Simd>(_simd: S, values: &'a mut [f32], signs: &'a [u32]) {
    let sign = |word: u32, bit: usize| word << (31 - bit) & 1 << 31;
    let (whole, rest) = values.as_chunks_mut::<32>();
    for (values, &word) in whole.iter_mut().zip(signs) {
        for (bit, value) in values.iter_mut().enumerate() {
            *value = f32::from_bits(value.to_bits() ^ sign(word, bit));
        }
    }
    if let Some(&word) = signs.get(whole.len()) {
        for (bit, value) in rest.iter_mut().enumerate() {
            *value = f32::from_bits(value.to_bits() ^ sign(word, bit));
        }
    }
}

/// Coordinates that are rotated together: whole blocks, and what is left at the end of a vector.
pub(super) const SEGMENT: usize = MAX_BLOCK;

/// The blocks that a segment is cut into.
pub(super) fn blocks(len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = len - start;
        let size = MAX_BLOCK.min(1 << left.checked_ilog2()?);
        let block = start..start + size;
        start = block.end;
        Some(block)
    })
}

#[with_simd(hadamard_blocks = Arch::new())]
#[inline(always)]
fn hadamard_blocks_with_simd<S: Simd>(simd: S, values: &mut [f32]) {
    for block in blocks(values.len()) {
        hadamard(simd, &mut values[block]);
    }
}

/// Values that are transformed as far as they go while they stay in the first-level cache.
const NEAR: usize = 1 << 12;

/// The unnormalised Walsh-Hadamard transform of a power of two of values, in place.
#[inline(always)]
fn hadamard<S: Simd>(simd: S, values: &mut [f32]) {
    if values.len() < FIRST {
        for half in [1, 2, 4] {
            stage(values, half);
        }
        return;
    }
    for near in values.chunks_mut(NEAR) {
        first_stages(near);
        stages(simd, near, 8);
    }
    stages(simd, values, NEAR);
}

/// One stage: the one that adds values `half` apart.
#[inline(always)]
fn stage(values: &mut [f32], half: usize) {
    for pair in values.chunks_exact_mut(2 * half) {
        let (low, high) = pair.split_at_mut(half);
        for (a, b) in low.iter_mut().zip(high) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
}

/// Values of the widest vectors.
const FIRST: usize = 16;

/// The stages within each eight values.
#[inline(always)]
fn first_stages(values: &mut [f32]) {
    for eight in values.as_chunks_mut::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *eight;
        let [a, b, c, d] = [a + b, a - b, c + d, c - d];
        let [e, f, g, h] = [e + f, e - f, g + h, g - h];
        let [a, b, c, d] = [a + c, b + d, a - c, b - d];
        let [e, f, g, h] = [e + g, f + h, e - g, f - h];
        *eight = [a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h];
    }
}

/// The stages from the one that adds values `half` apart, a multiple of 8, of at least [`FIRST`]
/// values: three in one pass over them, as far as there are three.
#[inline(always)]
fn stages<S: Simd>(simd: S, values: &mut [f32], half: usize) {
    let (vectors, _) = S::as_mut_simd_f32s(values);
    let butterfly = |a, b| (simd.add_f32s(a, b), simd.sub_f32s(a, b));
    let mut step = half / S::F32_LANES;
    if step == 0 {
        // Both halves of a vector, [x, y], become [y, x] + [x, -y].
        let mut signs = [1.0; FIRST];
        signs[half..].fill(-1.0);
        let signs = S::as_simd_f32s(&signs).0[0];
        for vector in vectors.iter_mut() {
            let swapped = simd.rotate_right_f32s(*vector, half);
            *vector = simd.add_f32s(swapped, simd.mul_f32s(*vector, signs));
        }
        step = 1;
    }
    while 8 * step <= vectors.len() {
        for part in vectors.chunks_exact_mut(8 * step) {
            for at in 0..step {
                let place = |k: usize| at + k * step;
                let (a, b) = butterfly(part[place(0)], part[place(1)]);
                let (c, d) = butterfly(part[place(2)], part[place(3)]);
                let (e, f) = butterfly(part[place(4)], part[place(5)]);
                let (g, h) = butterfly(part[place(6)], part[place(7)]);
                let ((a, c), (b, d)) = (butterfly(a, c), butterfly(b, d));
                let ((e, g), (f, h)) = (butterfly(e, g), butterfly(f, h));
                (part[place(0)], part[place(4)]) = butterfly(a, e);
                (part[place(1)], part[place(5)]) = butterfly(b, f);
                (part[place(2)], part[place(6)]) = butterfly(c, g);
                (part[place(3)], part[place(7)]) = butterfly(d, h);
            }
        }
        step *= 8;
    }
    while 2 * step <= vectors.len() {
        for part in vectors.chunks_exact_mut(2 * step) {
            let (low, high) = part.split_at_mut(step);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = butterfly(*a, *b);
            }
        }
        step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_everything_once() {
        for len in [0, 1, 2, 3, 7, 100, MAX_BLOCK, 2 * MAX_BLOCK + 33_001] {
            let mut next = 0;
            for block in blocks(len) {
                assert_eq!(block.start, next);
                assert!(block.len().is_power_of_two() && block.len() <= MAX_BLOCK);
                next = block.end;
            }
            assert_eq!(next, len);
        }
        let sizes: Vec<_> = blocks(11).map(|block| block.len()).collect();
        assert_eq!(sizes, [8, 2, 1]);
    }

    /// One stream of bits over the whole vector, wherever a segment begins.
    #[test]
    fn signs_are_the_streams_bits_from_the_lowest_on() {
        let rotation = Rotation::of(&Digest::of("test open", b""));
        let mut stream = [0; 3 * NEAR / 32];
        Prg::new(&Seed::from_bytes(*rotation.0.as_bytes())).fill(0, &mut stream);
        let sign = |place: usize| match stream[place / 32] >> (place % 32) & 1 {
            0 => 1.0,
            _ => -1.0,
        };
        for first in [0, NEAR] {
            let mut values = vec![1.0; 2 * NEAR];
            rotation.flip_signs(first, &mut values);
            let expected: Vec<f32> = (first..first + 2 * NEAR).map(sign).collect();
            assert_eq!(values, expected, "from {first}");
        }
    }

    /// Sylvester's construction, row by row.
    #[test]
    fn the_transform_is_the_hadamard_matrix() {
        let input: Vec<f32> = (0..8_u8).map(|k| f32::from(k * k)).collect();
        let mut output = input.clone();
        hadamard_blocks(&mut output);
        for (row, got) in output.iter().enumerate() {
            let expected: f32 = input
                .iter()
                .enumerate()
                .map(|(column, value)| match (row & column).count_ones() % 2 {
                    0 => *value,
                    _ => -value,
                })
                .sum();
            assert_eq!(*got, expected);
        }
    }

    /// One stage after the other: the same sums in the same order as all at once, of every size and
    /// on vectors of every width.
    #[test]
    fn the_cut_into_parts_and_vectors_changes_no_bit() {
        for len in (0..=14).map(|k| 1 << k) {
            let input: Vec<f32> = (0..len).map(|k| ((k * 37 % 1009) as f32).sqrt()).collect();
            let mut expected = input.clone();
            for half in (0..14).map(|k| 1 << k).take_while(|half| *half < len) {
                for pair in expected.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for (a, b) in low.iter_mut().zip(high) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
            }
            let widths: [fn(&mut [f32]); 4] = [
                hadamard_blocks,
                |values| hadamard(pulp::Scalar128b, values),
                |values| hadamard(pulp::Scalar256b, values),
                |values| hadamard(pulp::Scalar512b, values),
            ];
            for (width, transform) in widths.into_iter().enumerate() {
                let mut values = input.clone();
                transform(&mut values);
                assert_eq!(values, expected, "{len} values, width {width}");
            }
        }
    }

    /// Bit by bit, over several parts, from the vector's start and from another segment.
    #[test]
    fn each_sign_is_its_bit_of_the_stream() {
        let open = Digest::of("test open", b"");
        let rotation = Rotation::of(&open);
        let prg = Prg::new(&Seed::from_bytes(*rotation.0.as_bytes()));
        let len = 2 * NEAR + 40;
        for first in [0, SEGMENT] {
            let mut words = vec![0; len.div_ceil(32)];
            prg.fill(first / 32, &mut words);
            let mut values = vec![1.0; len];
            rotation.flip_signs(first, &mut values);
            for (at, value) in values.iter().enumerate() {
                let bit = words[at / 32] >> (at % 32) & 1;
                assert_eq!(*value, if bit == 1 { -1.0 } else { 1.0 }, "{at}");
            }
        }
    }

    #[test]
    fn inverse_undoes_forward_and_one_spike_is_spread() {
        let len = 1024 + 64;
        let rotation = Rotation::of(&Digest::of("test open", b""));
        let mut values = vec![0.0_f32; len];
        values[3] = 1.0;
        values[1030] = -2.0;
        let before = values.clone();
        rotation.forward(0, &mut values);
        assert!(values[..1024].iter().all(|value| value.abs() == 1.0));
        assert!(values[1024..].iter().all(|value| value.abs() == 2.0));
        rotation.inverse(0, &mut values);
        for (block, size) in [(0..1024, 1024.0), (1024..1088, 64.0)] {
            for (got, expected) in values[block.clone()].iter().zip(&before[block]) {
                assert_eq!(got / size, *expected);
            }
        }
        let other = Rotation::of(&Digest::of("test open", b"other"));
        let mut rotated = before.clone();
        other.forward(0, &mut rotated);
        rotation.inverse(0, &mut rotated);
        assert_ne!(rotated[3], 1024.0);
    }
}
