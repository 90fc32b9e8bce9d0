//! Fixed point: a clipped delta becomes integers modulo 2^b, and their sum the weighted mean
//! again. Step 4 of the round.
//!
//! A delta is rotated (`rotation.rs`), so that a coordinate of a block of B is about the norm over
//! sqrt(B): the lanes' range is r = clip * min(1, 7 / sqrt(B)), which a coordinate exceeds with
//! probability 3e-12. With b-bit lanes, n members in the round and their total weight W, a
//! rotated coordinate y of a member with weight w becomes the stochastic rounding of
//! `y / r * w * unit`, with `unit = (2^(b-1) - 1 - n) / W`: its expectation is exact, and a sum of
//! n of them cannot wrap. Behind the coordinates stand four auxiliary lanes of whole numbers: the
//! two losses in steps (`loss.rs`), whether the delta was clipped, and whether the member votes to
//! take the step before back.
//!
//! The relative root mean square error of a mean of norm m * clip, where nobody drops out, is about
//! `7 sqrt(blocks) sqrt(n / 6) / (m 2^(b-1))`.

mod decode;
mod encode;
mod lane;
mod loss;
mod robust;
mod rotation;
mod round_sum;
mod weight;

pub use decode::{SumError, SumParts, WeightedMean};
pub use encode::{Contribution, EncodedUpdate, RoundEncoding};
pub use lane::{LaneBits, RingSum};
pub use loss::{LOSS_CAP, LOSS_STEP, LossShift, LossSteps, MIN_SURVIVORS_FOR_LOSSES};
pub use robust::RobustRule;
#[cfg(feature = "simulation")]
pub use rotation::repeat_rotations;
pub use round_sum::{GroupSum, RoundSum, RoundSumError, SpoiltGroup};
pub use weight::{WeightClass, WeightClassError};

use fedlora_common::digest::Digest;
use rotation::{MAX_BLOCK, Rotation};

/// Lanes behind the delta's: training loss, evaluation loss, whether it was clipped, whether the
/// member votes against the step before.
pub const AUXILIARY_LANES: usize = 4;

/// How far above the clip the norm of a mean may be: fixed-point errors, which a plan keeps far
/// below.
const NORM_SLACK: f64 = 1.01;

/// A rotated coordinate's range, in standard deviations of a vector of the clip's norm.
const RANGE: f64 = 7.0;

/// The largest relative error that a plan may have, for a mean of a tenth of the clip's norm over
/// 2^24 coordinates.
pub const MAX_RELATIVE_ERROR: f64 = 0.01;

/// The fixed-point format of one attempt at a round, checked when made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedPoint {
    bits: LaneBits,
    clip: f64,
    unit: f64,
    rotation: Rotation,
}

/// Those whose updates a sum could hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CohortWeight {
    /// How many they are: n.
    pub members: usize,
    /// Their weights' sum: W.
    pub total: u64,
}

impl CohortWeight {
    /// The sum over members of these classes.
    pub fn of(classes: impl IntoIterator<Item = WeightClass>) -> Self {
        let none = Self {
            members: 0,
            total: 0,
        };
        classes.into_iter().fold(none, |sum, class| Self {
            members: sum.members + 1,
            total: sum.total + class.weight(),
        })
    }
}

impl FixedPoint {
    /// The format for the members `cohort`, deltas of L2 norm at most `clip`, and the rotation of
    /// the M0 with the digest `open`.
    ///
    /// # Errors
    /// [`FixedError`] where a parameter is impossible or the sum could overflow.
    pub fn new(
        bits: LaneBits,
        clip: f32,
        cohort: CohortWeight,
        open: &Digest,
    ) -> Result<Self, FixedError> {
        if cohort.members == 0 || cohort.total == 0 {
            return Err(FixedError::NoMembers);
        }
        if !clip.is_finite() || clip <= 0.0 {
            return Err(FixedError::Clip { got: clip });
        }
        // Besides rounding, the lanes must hold every member's losses.
        let most = bits.max() / i64::from(loss::MAX_STEPS);
        if cohort.members as i64 > most {
            return Err(FixedError::Members {
                got: cohort.members,
                bits: bits.bits(),
                most,
            });
        }
        let range = bits.max() - cohort.members as i64;
        Ok(Self {
            bits,
            clip: f64::from(clip),
            unit: range as f64 / cohort.total as f64,
            rotation: Rotation::of(open),
        })
    }

    /// Bits a lane.
    pub fn bits(&self) -> LaneBits {
        self.bits
    }

    /// What a lane counts for in a block of `block` coordinates, before the transform's
    /// normalisation: lane = y * scale.
    fn scale(&self, block: usize, weight: u64) -> f64 {
        let root = (block as f64).sqrt();
        let range = self.clip * (RANGE / root).min(1.0);
        weight as f64 * self.unit / (range * root)
    }
}

/// The relative root mean square error of the mean that [`MAX_RELATIVE_ERROR`] bounds.
pub fn expected_error(bits: LaneBits, members: usize) -> f64 {
    let blocks = (1 << 24) / MAX_BLOCK;
    RANGE * (blocks as f64).sqrt() * (members as f64 / 6.0).sqrt() / (0.1 * bits.max() as f64)
}

/// Whether the mean of updates clipped to `clip` can have this norm. The aggregator asks before it
/// applies a mean, and each member before it takes a result.
pub fn can_be_mean_norm(norm: f64, clip: f64) -> bool {
    norm <= clip * NORM_SLACK
}

/// What the fixed-point format refuses.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FixedError {
    /// A lane width that is not offered.
    #[error("{got} bits a lane are not offered: use 20, 24 or 32")]
    Bits {
        /// What was asked for.
        got: u8,
    },
    /// A format for nobody.
    #[error("a federation needs at least one member")]
    NoMembers,
    /// More members than the auxiliary lanes hold.
    #[error("{got} members overflow the loss lanes of {bits} bits: at most {most}, or more bits")]
    Members {
        /// Members of the round.
        got: usize,
        /// Bits a lane.
        bits: u32,
        /// The most that fit.
        most: i64,
    },
    /// A clip that bounds nothing.
    #[error("a clip norm of {got} bounds nothing: use a finite number above 0")]
    Clip {
        /// What was found.
        got: f32,
    },
    /// A coordinate that is NaN or infinite.
    #[error("coordinate {index} of the delta is not a finite number: training diverged")]
    NotFinite {
        /// Its place in the flat delta.
        index: usize,
    },
    /// A delta that was not clipped.
    #[error("the delta's norm exceeds the clip norm {clip}: clip it before encoding")]
    Norm {
        /// The clip norm.
        clip: f64,
    },
    /// A loss that is negative or NaN.
    #[error("a loss of {got} is not a loss")]
    Loss {
        /// What was found.
        got: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_formats_are_refused() {
        let open = Digest::of("test open", b"");
        let cohort = |members, total| CohortWeight { members, total };
        let format = |bits, clip, cohort| FixedPoint::new(bits, clip, cohort, &open);
        assert!(format(LaneBits::B24, 1.0, cohort(0, 0)).is_err());
        for clip in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(format(LaneBits::B24, clip, cohort(3, 3)).is_err());
        }
        for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
            assert_eq!(format(bits, 1.0, cohort(3, 3)).unwrap().bits(), bits);
        }
        // (2^19 - 1) / 161 = 3256.
        assert!(format(LaneBits::B20, 1.0, cohort(3256, 3256)).is_ok());
        assert!(matches!(
            format(LaneBits::B20, 1.0, cohort(3257, 3257)),
            Err(FixedError::Members { most: 3256, .. })
        ));
    }

    #[test]
    fn the_expected_error_grows_with_members_and_falls_with_bits() {
        assert!(expected_error(LaneBits::B24, 64) < 1e-3);
        assert!(expected_error(LaneBits::B20, 64) < MAX_RELATIVE_ERROR);
        assert!(expected_error(LaneBits::B20, 1000) > MAX_RELATIVE_ERROR);
        assert!(expected_error(LaneBits::B24, 1000) < MAX_RELATIVE_ERROR);
    }
}
