//! From one member's delta to lanes: still private, until the masker consumes them.

use std::fmt;

use rand::CryptoRng;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::rotation::{SEGMENT, blocks};
use super::{AUXILIARY_LANES, FixedError, FixedPoint, LaneBits, LossSteps, WeightClass};
use crate::crypto::keys::Seed;
use crate::crypto::prg::Prg;

/// What one member adds beside its delta. Private: seen by others in total only.
#[derive(Clone, Copy)]
pub struct Contribution {
    /// Mean training loss of the round.
    pub train_loss: LossSteps,
    /// The loss of the round's starting adapter on the member's own records.
    pub eval_loss: LossSteps,
    /// Whether the delta's norm exceeded the clip.
    pub clipped: bool,
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
        let rounding = Prg::new(&Seed::random(rng));
        let mut lanes = vec![0; delta.len() + AUXILIARY_LANES];
        let (coordinates, auxiliary) = lanes.split_at_mut(delta.len());
        let squares: f64 = coordinates
            .par_chunks_mut(SEGMENT)
            .zip(delta.par_chunks(SEGMENT))
            .enumerate()
            .map(|(place, (lanes, delta))| {
                self.encode_segment(place * SEGMENT, delta, weight, &rounding, lanes)
            })
            .sum();
        self.check(squares, delta)?;
        auxiliary[0] = contribution.train_loss.0;
        auxiliary[1] = contribution.eval_loss.0;
        auxiliary[2] = u32::from(contribution.clipped);
        Ok(EncodedUpdate {
            bits: self.bits,
            lanes,
        })
    }

    /// Encodes the coordinates from the one at `first` on; gives the sum of their squares.
    fn encode_segment(
        &self,
        first: usize,
        delta: &[f32],
        weight: WeightClass,
        rounding: &Prg,
        lanes: &mut [u32],
    ) -> f64 {
        let mut rotated = Zeroizing::new(delta.to_vec());
        let squares = pulp::Arch::new().dispatch(|| sum_of_squares(delta));
        self.rotation.forward(first, &mut rotated);
        rounding.for_each(first, lanes, |lane, word| *lane = word);
        let share = weight.weight() as f64 * self.unit;
        let mask = self.bits.mask();
        for block in blocks(delta.len()) {
            let scale = self.scale(block.len(), weight.weight());
            let (lanes, values) = (&mut lanes[block.clone()], &rotated[block]);
            pulp::Arch::new().dispatch(|| {
                for (lane, &y) in lanes.iter_mut().zip(values) {
                    *lane = round((f64::from(y) * scale).clamp(-share, share), *lane) & mask;
                }
            });
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

/// Stochastic rounding: up with the probability of the fraction. `word` is uniform.
#[inline(always)]
fn round(value: f64, word: u32) -> u32 {
    let uniform = f64::from(word) / 4_294_967_296.0;
    // Below 2^31 in magnitude.
    (value + uniform).floor() as i32 as u32
}

/// Summed in `f64`, in eight parts.
#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f64 {
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
