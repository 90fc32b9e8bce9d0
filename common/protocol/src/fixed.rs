//! Fixed point: a clipped delta and its weight become integers modulo 2^b. Step 4 of the round.
//!
//! With n members in the roster and b-bit lanes, no lane of one member exceeds
//! Q = floor((2^(b-1) - 1) / n) in magnitude, so a sum of n of them cannot wrap. A delta
//! coordinate x of a member with weight w becomes the stochastic rounding of
//! `x / clip * w / max_weight * Q`: its expectation is exact. Behind the coordinates stand
//! four auxiliary lanes, so that the weight and the losses are seen in total only.

use std::fmt;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::keys::Seed;
use crate::crypto::prg::Prg;

/// Lanes behind the delta's: weight, evaluated weight, weighted training loss, weighted
/// evaluation loss.
pub const AUXILIARY_LANES: usize = 4;

/// The largest loss that the encoding distinguishes, in nats per token; a uniform guess over
/// 128 k tokens has 11.8.
pub const LOSS_CAP: f64 = 32.0;

/// Bits a lane: the ring is the integers modulo 2^b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum LaneBits {
    /// 20 bits: 2.5 bytes a coordinate, for large adapters over thin links.
    B20,
    /// 24 bits: 3 bytes a coordinate.
    #[default]
    B24,
    /// 32 bits: 4 bytes a coordinate, for very large federations.
    B32,
}

impl LaneBits {
    /// The number b of bits: 20, 24 or 32.
    pub const fn bits(self) -> u32 {
        match self {
            Self::B20 => 20,
            Self::B24 => 24,
            Self::B32 => 32,
        }
    }

    /// The bit mask 2^b - 1.
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }

    /// The signed integer of least magnitude that is `lane` modulo 2^b.
    pub const fn lift(self, lane: u32) -> i64 {
        let shift = 32 - self.bits();
        (((lane << shift) as i32) >> shift) as i64
    }

    /// `value` modulo 2^b.
    pub const fn wrap(self, value: i64) -> u32 {
        value as u32 & self.mask()
    }
}

impl TryFrom<u8> for LaneBits {
    type Error = FixedError;

    fn try_from(bits: u8) -> Result<Self, FixedError> {
        match bits {
            20 => Ok(Self::B20),
            24 => Ok(Self::B24),
            32 => Ok(Self::B32),
            got => Err(FixedError::Bits { got }),
        }
    }
}

impl From<LaneBits> for u8 {
    fn from(bits: LaneBits) -> u8 {
        bits.bits() as u8
    }
}

/// A run's fixed-point format, checked when made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedPoint {
    bits: LaneBits,
    clip: f64,
    max_weight: u32,
    quantum: i64,
}

impl FixedPoint {
    /// The format for at most `members` members, deltas of L2 norm at most `clip` and weights
    /// (example counts) of at most `max_weight`.
    ///
    /// # Errors
    /// [`FixedError`] where a parameter is impossible or the sum could overflow.
    pub fn new(
        bits: LaneBits,
        members: usize,
        clip: f32,
        max_weight: u32,
    ) -> Result<Self, FixedError> {
        if members == 0 {
            return Err(FixedError::NoMembers);
        }
        if !clip.is_finite() || clip <= 0.0 {
            return Err(FixedError::Clip { got: clip });
        }
        let quantum = ((1_i64 << (bits.bits() - 1)) - 1) / members as i64;
        if max_weight == 0 || i64::from(max_weight) > quantum {
            return Err(FixedError::MaxWeight {
                got: max_weight,
                bits: bits.bits(),
                members,
                most: quantum,
            });
        }
        Ok(Self {
            bits,
            clip: f64::from(clip),
            max_weight,
            quantum,
        })
    }

    /// Bits of each lane.
    pub fn bits(&self) -> LaneBits {
        self.bits
    }

    /// The largest magnitude of one member's lane: Q.
    pub fn quantum(&self) -> i64 {
        self.quantum
    }

    /// Encodes one member's contribution: `delta.len()` + [`AUXILIARY_LANES`] lanes.
    ///
    /// # Errors
    /// [`FixedError`] for a coordinate that is not finite or exceeds the clip, a weight of 0 or
    /// above the plan's maximum, or a loss that is negative or not a number.
    pub fn encode(
        &self,
        delta: &[f32],
        contribution: Contribution,
        rng: &mut impl CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        let weight = contribution.weight;
        if weight == 0 || weight > self.max_weight {
            return Err(FixedError::Weight {
                got: weight,
                most: self.max_weight,
            });
        }
        let share = f64::from(weight) / f64::from(self.max_weight) * self.quantum as f64;
        let loss = |value: f32| {
            let value = f64::from(value);
            if value.is_nan() || value < 0.0 {
                return Err(FixedError::Loss { got: value });
            }
            Ok(value.min(LOSS_CAP) / LOSS_CAP * share)
        };
        let train_loss = loss(contribution.train_loss)?;
        let eval_loss = contribution.eval_loss.map(loss).transpose()?;

        let mut encoded = EncodedUpdate {
            bits: self.bits,
            lanes: vec![0; delta.len() + AUXILIARY_LANES],
        };
        // One seed from the caller's generator, expanded: a system call a lane would take
        // longer than the training step.
        let mut rounding = Prg::new(&Seed::random(rng));
        rounding.for_each(&mut encoded.lanes, |lane, word| *lane = word);

        let (coordinates, auxiliary) = encoded.lanes.split_at_mut(delta.len());
        let scale = share / self.clip;
        for (index, (lane, &x)) in coordinates.iter_mut().zip(delta).enumerate() {
            if !x.is_finite() {
                return Err(FixedError::NotFinite { index });
            }
            // A clipped vector's rounding may leave a coordinate one f32 step above the clip.
            if f64::from(x).abs() > self.clip * (1.0 + 1e-6) {
                return Err(FixedError::Overflow { index });
            }
            *lane = self.round(f64::from(x) * scale, *lane);
        }
        let evaluated = if eval_loss.is_some() { weight } else { 0 };
        auxiliary[0] = weight;
        auxiliary[1] = evaluated;
        auxiliary[2] = self.round(train_loss, auxiliary[2]);
        auxiliary[3] = self.round(eval_loss.unwrap_or(0.0), auxiliary[3]);
        Ok(encoded)
    }

    /// Decodes a sum of encoded contributions to the weighted mean.
    ///
    /// # Errors
    /// A vector without auxiliary lanes, or a total weight that no such sum can have: the
    /// masks did not cancel, or a member sent something else than an encoded update.
    pub fn decode(&self, sum: &RingSum) -> Result<WeightedMean, FixedError> {
        let lanes = &sum.0;
        if lanes.len() < AUXILIARY_LANES {
            return Err(FixedError::Length { got: lanes.len() });
        }
        let (coordinates, auxiliary) = lanes.split_at(lanes.len() - AUXILIARY_LANES);
        let weight = self.bits.lift(auxiliary[0]);
        let evaluated = self.bits.lift(auxiliary[1]);
        let most = (1_i64 << (self.bits.bits() - 1)) - 1;
        if weight <= 0 || weight > most || evaluated < 0 || evaluated > weight {
            return Err(FixedError::TotalWeight { got: weight });
        }
        let unit = f64::from(self.max_weight) / self.quantum as f64;
        let scale = self.clip * unit / weight as f64;
        let loss = |lane: u32, weight: i64| {
            (weight > 0)
                .then(|| (self.bits.lift(lane) as f64 * unit * LOSS_CAP / weight as f64) as f32)
        };
        Ok(WeightedMean {
            delta: coordinates
                .iter()
                .map(|&lane| (self.bits.lift(lane) as f64 * scale) as f32)
                .collect(),
            weight: weight as u64,
            train_loss: loss(auxiliary[2], weight),
            eval_loss: loss(auxiliary[3], evaluated),
        })
    }

    /// Stochastic rounding: up with the probability of the fraction. `word` is uniform.
    fn round(&self, value: f64, word: u32) -> u32 {
        let uniform = f64::from(word) / 4_294_967_296.0;
        let rounded = (value + uniform).floor() as i64;
        self.bits.wrap(rounded.clamp(-self.quantum, self.quantum))
    }
}

/// What one member adds beside its delta. Private: others see the total only.
#[derive(Clone, Copy)]
pub struct Contribution {
    /// The number of training examples.
    pub weight: u32,
    /// Mean training loss of the round, in nats per token.
    pub train_loss: f32,
    /// The loss of the round's starting adapter on the member's held-out data, if it has any.
    pub eval_loss: Option<f32>,
}

impl fmt::Debug for Contribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contribution(..)")
    }
}

/// One member's contribution as ring integers: still the private delta. Wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct EncodedUpdate {
    #[zeroize(skip)]
    bits: LaneBits,
    lanes: Vec<u32>,
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

    /// Bits of each lane.
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

/// An unmasked sum of contributions, modulo 2^b.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingSum(pub Vec<u32>);

/// A decoded sum, divided by its total weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedMean {
    /// The weighted mean of the members' deltas.
    pub delta: Vec<f32>,
    /// The total weight (examples).
    pub weight: u64,
    /// Weighted mean training loss, in nats per token.
    pub train_loss: Option<f32>,
    /// Weighted mean evaluation loss over those members that have held-out data.
    pub eval_loss: Option<f32>,
}

/// Why a format, an update or a sum is refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum FixedError {
    /// A lane width that is not supported.
    #[error("lanes of {got} bits are not supported: use 20, 24 or 32")]
    Bits {
        /// The number of bits asked for.
        got: u8,
    },
    /// A format for a federation without members.
    #[error("a federation needs at least one member")]
    NoMembers,
    /// A clip norm that is not a finite number above 0.
    #[error("a clip norm of {got} is not a finite number above 0")]
    Clip {
        /// The clip norm found.
        got: f32,
    },
    /// Weights that could overflow the weight lane.
    #[error(
        "a largest weight of {got} could overflow {bits}-bit lanes with {members} members: \
         use 1 to {most}, or more bits"
    )]
    MaxWeight {
        /// The largest weight asked for.
        got: u32,
        /// Bits of each lane.
        bits: u32,
        /// Members in the roster.
        members: usize,
        /// The largest weight that cannot overflow.
        most: i64,
    },
    /// A member's weight outside the plan's range.
    #[error("a weight of {got} is outside 1 to {most}")]
    Weight {
        /// The member's weight.
        got: u32,
        /// The plan's largest weight.
        most: u32,
    },
    /// A coordinate that is NaN or infinite.
    #[error("coordinate {index} of the delta is not a finite number: training diverged")]
    NotFinite {
        /// Its place in the flat delta.
        index: usize,
    },
    /// A coordinate that could overflow.
    #[error("coordinate {index} of the delta exceeds the clip norm: clip it before encoding")]
    Overflow {
        /// Its place in the flat delta.
        index: usize,
    },
    /// A loss that is negative or NaN.
    #[error("a loss of {got} is negative or not a number")]
    Loss {
        /// The loss found.
        got: f64,
    },
    /// A sum too short to hold the auxiliary lanes.
    #[error("a sum of {got} lanes is too short")]
    Length {
        /// Lanes of the sum.
        got: usize,
    },
    /// A total weight that no sum of encoded updates has.
    #[error(
        "the sum's total weight reads {got}: the masks did not cancel, or a member sent \
         something else than an encoded update"
    )]
    TotalWeight {
        /// The value of the sum's weight lane.
        got: i64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::os_rng;

    fn contribution(weight: u32) -> Contribution {
        Contribution {
            weight,
            train_loss: 2.5,
            eval_loss: Some(3.0),
        }
    }

    fn add(format: &FixedPoint, updates: &[EncodedUpdate]) -> RingSum {
        let mut sum = vec![0_u32; updates[0].lanes().len()];
        for update in updates {
            for (total, lane) in sum.iter_mut().zip(update.lanes()) {
                *total = total.wrapping_add(*lane) & format.bits().mask();
            }
        }
        RingSum(sum)
    }

    #[test]
    fn impossible_formats_are_refused() {
        assert!(LaneBits::try_from(16).is_err());
        assert!(FixedPoint::new(LaneBits::B24, 0, 1.0, 1).is_err());
        for clip in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(FixedPoint::new(LaneBits::B24, 3, clip, 1).is_err());
        }
        assert!(FixedPoint::new(LaneBits::B24, 3, 1.0, 0).is_err());
        // 20 bits among 64 members: Q = 8191.
        assert!(FixedPoint::new(LaneBits::B20, 64, 1.0, 8191).is_ok());
        assert!(FixedPoint::new(LaneBits::B20, 64, 1.0, 8192).is_err());
    }

    #[test]
    fn what_could_overflow_is_refused() {
        let format = FixedPoint::new(LaneBits::B24, 3, 1.0, 100).unwrap();
        let mut rng = os_rng();
        let refused = |delta: &[f32], weight: u32| {
            format
                .encode(delta, contribution(weight), &mut os_rng())
                .unwrap_err()
        };
        assert_eq!(refused(&[0.5, 1.1], 1), FixedError::Overflow { index: 1 });
        assert_eq!(refused(&[f32::NAN], 1), FixedError::NotFinite { index: 0 });
        assert_eq!(
            refused(&[0.0, 0.0, f32::NEG_INFINITY], 1),
            FixedError::NotFinite { index: 2 }
        );
        assert_eq!(refused(&[0.0], 0), FixedError::Weight { got: 0, most: 100 });
        assert_eq!(
            refused(&[0.0], 101),
            FixedError::Weight {
                got: 101,
                most: 100
            }
        );
        let mut bad = contribution(1);
        bad.train_loss = f32::NAN;
        assert!(format.encode(&[0.0], bad, &mut rng).is_err());
    }

    #[test]
    fn a_sum_that_is_noise_is_refused() {
        let format = FixedPoint::new(LaneBits::B24, 3, 1.0, 100).unwrap();
        let mut lanes = vec![0; 2 + AUXILIARY_LANES];
        lanes[2] = LaneBits::B24.wrap(-5);
        assert!(format.decode(&RingSum(lanes.clone())).is_err());
        lanes[2] = 5;
        lanes[3] = 6;
        assert!(format.decode(&RingSum(lanes)).is_err());
        assert!(format.decode(&RingSum(vec![0; 3])).is_err());
    }

    #[test]
    fn rounding_is_unbiased() {
        let format = FixedPoint::new(LaneBits::B24, 3, 1.0, 1).unwrap();
        let x = 0.3 / format.quantum() as f32;
        let encoded = format
            .encode(&vec![x; 100_000], contribution(1), &mut os_rng())
            .unwrap();
        let ups: u32 = encoded.lanes()[..100_000].iter().sum();
        // 30,000 expected, standard deviation 145.
        assert!((29_000..31_000).contains(&ups), "{ups}");
    }

    proptest! {
        #[test]
        fn the_decoded_sum_is_the_weighted_mean(
            bits in prop_oneof![Just(LaneBits::B20), Just(LaneBits::B24), Just(LaneBits::B32)],
            members in prop::collection::vec(
                (prop::collection::vec(-1.0f32..=1.0, 7), 1u32..=50), 1..9),
        ) {
            let clip = 1.0;
            let format = FixedPoint::new(bits, members.len(), clip, 50).unwrap();
            let encoded: Vec<_> = members
                .iter()
                .map(|(delta, weight)| {
                    format.encode(delta, contribution(*weight), &mut os_rng()).unwrap()
                })
                .collect();
            let mean = format.decode(&add(&format, &encoded)).unwrap();
            let total: u32 = members.iter().map(|(_, weight)| weight).sum();
            prop_assert_eq!(mean.weight, u64::from(total));
            // Each member is off by less than one quantum step.
            let bound = members.len() as f64 * 50.0 / format.quantum() as f64 / f64::from(total);
            for k in 0..7 {
                let exact: f64 = members
                    .iter()
                    .map(|(delta, weight)| f64::from(delta[k]) * f64::from(*weight))
                    .sum::<f64>() / f64::from(total);
                prop_assert!((f64::from(mean.delta[k]) - exact).abs() <= bound + 1e-6);
            }
            prop_assert!((f64::from(mean.train_loss.unwrap()) - 2.5).abs() <= bound * LOSS_CAP + 1e-5);
            prop_assert!((f64::from(mean.eval_loss.unwrap()) - 3.0).abs() <= bound * LOSS_CAP + 1e-5);
        }

        #[test]
        fn lift_undoes_wrap(value in -524_288i64..524_288) {
            for bits in [LaneBits::B20, LaneBits::B24, LaneBits::B32] {
                prop_assert_eq!(bits.lift(bits.wrap(value)), value);
            }
        }
    }
}
