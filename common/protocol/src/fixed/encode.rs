//! From one member's delta to lanes: still private, until the masker consumes them.

use std::fmt;

use pulp::bytemuck::cast_slice_mut;
use pulp::{Arch, Simd, with_simd};
use rand::CryptoRng;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::rotation::{SEGMENT, blocks};
use super::{AUXILIARY_LANES, FixedError, FixedPoint, LaneBits, LossSteps, WeightClass};
use crate::crypto::keys::Seed;
use crate::crypto::prg::Prg;

/// Words of the stream that are made at a time: 4 KiB, which stay in the first-level cache.
const WORDS: usize = 1 << 10;

/// What one member adds beside its delta. Private: seen by others in total only.
#[derive(Clone, Copy)]
pub struct Contribution {
    /// Mean training loss of the round.
    pub train_loss: LossSteps,
    /// The loss of the round's starting adapter on the member's own records.
    pub eval_loss: LossSteps,
    /// Whether the delta's norm exceeded the clip.
    pub clipped: bool,
    /// Whether the round's starting adapter is worse on the member's own records than the one before.
    pub worse: bool,
}

impl fmt::Debug for Contribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contribution(..)")
    }
}

/// How one member encodes its update for one attempt at a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundEncoding {
    /// The attempt's format.
    pub format: FixedPoint,
    /// This member's weight.
    pub weight: WeightClass,
}

impl RoundEncoding {
    /// Encodes this member's delta.
    ///
    /// # Errors
    /// As [`FixedPoint::encode`].
    pub fn encode(
        &self,
        delta: &[f32],
        contribution: Contribution,
        rng: &mut impl CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        self.format.encode(delta, self.weight, contribution, rng)
    }
}

/// One member's contribution as ring integers: still the private delta. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct EncodedUpdate {
    #[zeroize(skip)]
    bits: LaneBits,
    lanes: Vec<u32>,
}

impl FixedPoint {
    /// Encodes the delta of a member of class `weight`: `delta.len()` + [`AUXILIARY_LANES`] lanes.
    ///
    /// # Errors
    /// A coordinate that is not finite, or a norm above the clip.
    pub fn encode(
        &self,
        delta: &[f32],
        weight: WeightClass,
        contribution: Contribution,
        rng: &mut impl CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        // One seed from the caller's generator, expanded: a system call a lane would take
        // longer than the training step.
        self.encode_with(delta, weight, contribution, &Prg::new(&Seed::random(rng)))
    }

    /// Encodes a delta with the stream `rounding`, word by coordinate.
    fn encode_with(
        &self,
        delta: &[f32],
        weight: WeightClass,
        contribution: Contribution,
        rounding: &Prg,
    ) -> Result<EncodedUpdate, FixedError> {
        // The delta's copy is rotated and rounded in place.
        let mut encoded = EncodedUpdate {
            bits: self.bits,
            lanes: copy_bits(delta),
        };
        let squares: f64 = encoded
            .lanes
            .par_chunks_mut(SEGMENT)
            .enumerate()
            .map(|(place, lanes)| self.encode_segment(place * SEGMENT, weight, rounding, lanes))
            .sum();
        self.check(squares, delta)?;
        let Contribution {
            train_loss,
            eval_loss,
            clipped,
            worse,
        } = contribution;
        encoded
            .lanes
            .extend([train_loss.0, eval_loss.0, clipped.into(), worse.into()]);
        Ok(encoded)
    }

    /// Encodes the coordinates from the one at `first` on in place, from the bits of their `f32`
    /// to lanes; gives the sum of their squares.
    fn encode_segment(
        &self,
        first: usize,
        weight: WeightClass,
        rounding: &Prg,
        lanes: &mut [u32],
    ) -> f64 {
        let values: &mut [f32] = cast_slice_mut(lanes);
        let squares = sum_of_squares(values);
        self.rotation.forward(first, values);
        let share = weight.weight() as f64 * self.unit;
        let mask = self.bits.mask();
        let mut words = Zeroizing::new([0; WORDS]);
        for block in blocks(lanes.len()) {
            let scale = self.scale(block.len(), weight.weight());
            let first = first + block.start;
            for (place, lanes) in lanes[block].chunks_mut(WORDS).enumerate() {
                // Only a block of one or two starts at no multiple of 4.
                let at = first + place * WORDS;
                let skip = at % 4;
                let words = &mut words[..skip + lanes.len()];
                rounding.fill(at - skip, words);
                let words = &words[skip..];
                round_lanes(lanes, words, scale, share, mask);
            }
        }
        squares
    }

    /// Checks the sum of the squares of all coordinates.
    fn check(&self, squares: f64, delta: &[f32]) -> Result<(), FixedError> {
        // Squares of finite f32 values do not overflow an f64: the delta is searched only then.
        if !squares.is_finite()
            && let Some(index) = delta.iter().position(|x| !x.is_finite())
        {
            return Err(FixedError::NotFinite { index });
        }
        // A clipped vector's rounding to f32 may leave its norm slightly above the clip.
        if squares.sqrt() > self.clip * (1.0 + 1e-6) {
            return Err(FixedError::Norm { clip: self.clip });
        }
        Ok(())
    }
}

/// The bits of a delta's coordinates, with room for the auxiliary lanes.
fn copy_bits(delta: &[f32]) -> Vec<u32> {
    // Chunks that threads write to where they stay: to zero the lanes first, and on one thread,
    // takes longer than the copy.
    const CHUNK: usize = 1 << 12;
    let (chunks, rest) = delta.as_chunks::<CHUNK>();
    let mut copies: Vec<[u32; CHUNK]> = Vec::with_capacity(chunks.len() + 1);
    let copy = |values: &[f32; CHUNK]| {
        let mut bits = [0; CHUNK];
        for (bits, value) in bits.iter_mut().zip(values) {
            *bits = value.to_bits();
        }
        bits
    };
    chunks.par_iter().map(copy).collect_into_vec(&mut copies);
    let mut lanes = copies.into_flattened();
    lanes.reserve_exact(rest.len() + AUXILIARY_LANES);
    lanes.extend(rest.iter().map(|value| value.to_bits()));
    lanes
}

/// Rounds the values whose bits are in `lanes`, times `scale`.
#[with_simd(round_lanes = Arch::new())]
#[inline(always)]
fn round_lanes_with_simd<'a, S: Simd>(
    _simd: S,
    lanes: &'a mut [u32],
    words: &'a [u32],
    scale: f64,
    share: f64,
    mask: u32,
) {
    for (lane, word) in lanes.iter_mut().zip(words) {
        let value = f64::from(f32::from_bits(*lane)) * scale;
        *lane = round(value, share, *word) & mask;
    }
}

/// Clamps to `share` in magnitude, below 2^31, and rounds: up with the probability of the fraction.
/// `word` is uniform. Gives the integer's 32 lowest bits.
#[inline(always)]
fn round(value: f64, share: f64, word: u32) -> u32 {
    let value = if value > share { share } else { value };
    let value = if value < -share { -share } else { value };
    let integer = (value + f64::from(word) / 4_294_967_296.0).floor();
    // Integers next to 1.5 * 2^52 are their own last bits. Vector units lack the cast.
    (integer + 6_755_399_441_055_744.0).to_bits() as u32
}

/// Summed in `f64`, in eight parts.
#[with_simd(sum_of_squares = Arch::new())]
#[inline(always)]
pub(super) fn sum_of_squares_with_simd<S: Simd>(_simd: S, values: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (eights, rest) = values.as_chunks::<8>();
    for eight in eights {
        for (sum, &x) in sums.iter_mut().zip(eight) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    sums.iter().sum::<f64>() + rest
}

impl EncodedUpdate {
    /// The unmasked lanes, for tests and for a simulator that checks sums: no program that a
    /// member runs has this.
    // Not inlined: CI looks for its symbol in the programs.
    #[cfg(any(test, feature = "simulation"))]
    #[inline(never)]
    pub fn lanes(&self) -> &[u32] {
        &self.lanes
    }

    /// An update of any lanes, as a malicious member would make it.
    #[cfg(any(test, feature = "simulation"))]
    pub fn forge(bits: LaneBits, lanes: Vec<u32>) -> Self {
        Self { bits, lanes }
    }

    /// Bits a lane.
    pub fn bits(&self) -> LaneBits {
        self.bits
    }

    /// Hands the lanes over to the masker.
    pub(crate) fn into_lanes(mut self) -> Vec<u32> {
        std::mem::take(&mut self.lanes)
    }
}

impl fmt::Debug for EncodedUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedUpdate({} lanes)", self.lanes.len())
    }
}

#[cfg(test)]
mod tests {
    use fedlora_common::digest::Digest;

    use super::*;
    use crate::crypto::os_rng;
    use crate::fixed::{CohortWeight, LossShift};

    fn contribution() -> Contribution {
        let shift = LossShift::random(&mut os_rng());
        Contribution {
            train_loss: shift.steps(2.5).unwrap(),
            eval_loss: shift.steps(3.0).unwrap(),
            clipped: false,
            worse: true,
        }
    }

    fn format() -> FixedPoint {
        let cohort = CohortWeight {
            members: 3,
            total: 3,
        };
        FixedPoint::new(LaneBits::B24, 1.0, cohort, &Digest::of("test open", b"")).unwrap()
    }

    #[test]
    fn what_was_not_clipped_is_refused() {
        let refused = |delta: &[f32]| {
            format()
                .encode(delta, WeightClass::ONE, contribution(), &mut os_rng())
                .unwrap_err()
        };
        assert_eq!(refused(&[0.8, 0.8]), FixedError::Norm { clip: 1.0 });
        assert_eq!(refused(&[f32::NAN]), FixedError::NotFinite { index: 0 });
        assert_eq!(
            refused(&[0.0, 0.0, f32::NEG_INFINITY]),
            FixedError::NotFinite { index: 2 }
        );
    }

    #[test]
    fn debug_shows_no_loss_and_no_lane() {
        let own = contribution();
        let encoded = format().encode(&[0.5], WeightClass::ONE, own, &mut os_rng());
        assert_eq!(
            format!("{own:?} {:?}", encoded.unwrap()),
            "Contribution(..) EncodedUpdate(5 lanes)"
        );
    }

    /// In place and on vectors against one coordinate after the other, over two segments and blocks
    /// down to one coordinate; the clamp is reached.
    #[test]
    fn lanes_are_those_of_the_formula() {
        let len = SEGMENT + 1024 + 8 + 2 + 1;
        let mut delta: Vec<f32> = (0..len)
            .map(|k| ((k * 37 % 1009) as f32).sin() * 1e-3)
            .collect();
        delta[SEGMENT + 1034] = -0.9;
        let rounding = Prg::new(&Seed::from_bytes([6; 32]));
        let mut words = vec![0; len];
        rounding.fill(0, &mut words);
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            let cohort = CohortWeight {
                members: 3,
                total: 9,
            };
            let open = Digest::of("test open", b"");
            let format = FixedPoint::new(bits, 1.0, cohort, &open).unwrap();
            let weight = WeightClass::ONE;
            let share = weight.weight() as f64 * format.unit;
            let mut values = delta.clone();
            for (place, values) in values.chunks_mut(SEGMENT).enumerate() {
                format.rotation.forward(place * SEGMENT, values);
            }
            let mut expected = Vec::new();
            for segment in [0..SEGMENT, SEGMENT..len] {
                for block in blocks(segment.len()) {
                    let scale = format.scale(block.len(), weight.weight());
                    for at in block {
                        let at = segment.start + at;
                        let value = (f64::from(values[at]) * scale).clamp(-share, share);
                        let uniform = f64::from(words[at]) / 2_f64.powi(32);
                        expected.push(bits.wrap((value + uniform).floor() as i64));
                    }
                }
            }
            let contribution = contribution();
            let encoded = format
                .encode_with(&delta, weight, contribution, &rounding)
                .unwrap();
            assert!(encoded.lanes[..len] == expected, "{bits:?}");
            assert_eq!(encoded.lanes[len], contribution.train_loss.0);
            assert_eq!(encoded.lanes[len + 2..], [0, 1]);
            assert_eq!(encoded.lanes.len(), len + AUXILIARY_LANES);
        }
    }

    #[test]
    fn rounding_clamps_and_keeps_the_last_bits() {
        for (value, word, expected) in [
            (5.0, u32::MAX, 2),
            (-5.0, 0, -2),
            (-0.5, 1 << 31, 0),
            (-0.5, (1 << 31) - 1, -1),
            (0.0, u32::MAX, 0),
        ] {
            assert_eq!(round(value, 2.0, word) as i32, expected);
        }
        let most = 2_147_483_640.0;
        assert_eq!(round(1e12, most, 0) as i32, 2_147_483_640);
        assert_eq!(round(-1e12, most, 0) as i32, -2_147_483_640);
    }

    #[test]
    fn rounding_is_unbiased() {
        let format = format();
        // A spike becomes a constant up to signs: 0.3 of a lane in each coordinate.
        let mut delta = vec![0.0_f32; 1 << 16];
        delta[0] = (0.3 / format.scale(1 << 16, 1)) as f32;
        let encoded = format
            .encode(&delta, WeightClass::ONE, contribution(), &mut os_rng())
            .unwrap();
        let lanes = &encoded.lanes()[..1 << 16];
        let count = |lane: i64| {
            lanes
                .iter()
                .filter(|l| format.bits.lift(**l) == lane)
                .count()
        };
        let (up, down) = (count(1), count(-1));
        assert_eq!(up + down + count(0), 1 << 16);
        // 19,661 expected, standard deviation 117; the signs' own is within it.
        assert!((19_000..20_400).contains(&(up + down)), "{up} {down}");
    }
}
