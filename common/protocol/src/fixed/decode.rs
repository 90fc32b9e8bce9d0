//! From the unmasked sum to the weighted mean, and what a sum cannot be.

use pulp::{Arch, Simd, with_simd};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::encode::sum_of_squares;
use super::loss::{MAX_STEPS, mean_loss};
use super::rotation::{SEGMENT, blocks};
use super::{
    AUXILIARY_LANES, FixedPoint, LaneBits, MIN_SURVIVORS_FOR_LOSSES, RingSum, can_be_mean_norm,
};

/// Those whose updates are in a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumParts {
    /// How many they are.
    pub survivors: usize,
    /// Their weights' sum, at least 1.
    pub weight: u64,
}

/// A decoded sum, divided by its total weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedMean {
    /// The weighted mean of the members' deltas.
    pub delta: Vec<f32>,
    /// Mean training loss over the survivors, each counted once, in nats a token. None where they
    /// are fewer than [`MIN_SURVIVORS_FOR_LOSSES`].
    pub train_loss: Option<f32>,
    /// Mean loss of the round's starting adapter, likewise.
    pub eval_loss: Option<f32>,
    /// How many survivors' deltas were clipped, likewise.
    pub clipped: Option<u16>,
    /// How many survivors vote to take the step before back, likewise.
    pub votes: Option<u16>,
}

/// What a sum's auxiliary lanes come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct AuxiliarySums {
    train: i64,
    eval: i64,
    clipped: i64,
    votes: i64,
}

impl AuxiliarySums {
    /// Of the sums of two groups together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            train: self.train + other.train,
            eval: self.eval + other.eval,
            clipped: self.clipped + other.clipped,
            votes: self.votes + other.votes,
        }
    }

    /// The mean with what is told of the `survivors` that these sums are over.
    pub(super) fn beside(self, delta: Vec<f32>, survivors: usize) -> WeightedMean {
        let published = survivors >= MIN_SURVIVORS_FOR_LOSSES;
        let loss = |steps| published.then(|| mean_loss(steps, survivors));
        WeightedMean {
            delta,
            train_loss: loss(self.train),
            eval_loss: loss(self.eval),
            clipped: published.then_some(self.clipped as u16),
            votes: published.then_some(self.votes as u16),
        }
    }
}

impl FixedPoint {
    /// Decodes a sum of encoded updates to the weighted mean.
    ///
    /// # Errors
    /// [`SumError`] for a sum that honest updates cannot have: the masks did not cancel, or a
    /// member sent something else than an encoded update.
    pub fn decode(&self, sum: &RingSum, parts: SumParts) -> Result<WeightedMean, SumError> {
        let (delta, auxiliary) = self.decode_parts(sum, parts)?;
        Ok(auxiliary.beside(delta, parts.survivors))
    }

    /// Likewise, with the auxiliary lanes as they are.
    pub(super) fn decode_parts(
        &self,
        sum: &RingSum,
        parts: SumParts,
    ) -> Result<(Vec<f32>, AuxiliarySums), SumError> {
        let length = sum.0.len();
        let Some(at) = length.checked_sub(AUXILIARY_LANES) else {
            return Err(SumError::Length { got: length });
        };
        let (coordinates, auxiliary) = sum.0.split_at(at);
        let survivors = parts.survivors as i64;
        let whole = |place: usize, name, most: i64| {
            let got = self.bits.lift(auxiliary[place]);
            let most = most * survivors;
            if (0..=most).contains(&got) {
                Ok(got)
            } else {
                Err(SumError::Auxiliary { name, got, most })
            }
        };
        let auxiliary = AuxiliarySums {
            train: whole(0, "training loss", MAX_STEPS.into())?,
            eval: whole(1, "evaluation loss", MAX_STEPS.into())?,
            clipped: whole(2, "number of clipped updates", 1)?,
            votes: whole(3, "number of votes", 1)?,
        };

        let mut delta = vec![0.0; coordinates.len()];
        let squares: f64 = delta
            .par_chunks_mut(SEGMENT)
            .zip(coordinates.par_chunks(SEGMENT))
            .enumerate()
            .map(|(place, (values, lanes))| {
                self.decode_segment(place * SEGMENT, lanes, parts.weight, values);
                sum_of_squares(values)
            })
            .sum();
        if !can_be_mean_norm(squares.sqrt(), self.clip) {
            return Err(SumError::Norm {
                got: squares.sqrt(),
                clip: self.clip,
            });
        }
        Ok((delta, auxiliary))
    }
}

impl FixedPoint {
    fn decode_segment(&self, first: usize, lanes: &[u32], weight: u64, values: &mut [f32]) {
        for block in blocks(lanes.len()) {
            // The transform's factor 1 / sqrt(B), twice: forward and back.
            let scale = 1.0 / (self.scale(block.len(), weight) * block.len() as f64);
            lift_lanes(&lanes[block.clone()], self.bits, scale, &mut values[block]);
        }
        self.rotation.inverse(first, values);
    }
}

/// The lanes' integers, times `scale`.
#[with_simd(lift_lanes = Arch::new())]
#[inline(always)]
fn lift_lanes_with_simd<'a, S: Simd>(
    _simd: S,
    lanes: &'a [u32],
    bits: LaneBits,
    scale: f64,
    values: &'a mut [f32],
) {
    for (value, &lane) in values.iter_mut().zip(lanes) {
        // A lane's integer fits an i32, which vector units convert.
        *value = (f64::from(bits.lift(lane) as i32) * scale) as f32;
    }
}

/// What a sum of encoded updates cannot be.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SumError {
    /// A sum too short to hold the auxiliary lanes.
    #[error("a sum of {got} lanes is too short")]
    Length {
        /// Its lanes.
        got: usize,
    },
    /// An auxiliary lane out of range.
    #[error(
        "the sum's {name} reads {got}, and no sum of updates is outside 0 to {most}: the masks did \
         not cancel, or a member sent something else than an encoded update"
    )]
    Auxiliary {
        /// Which lane.
        name: &'static str,
        /// What it reads.
        got: i64,
        /// The most that the survivors' can come to.
        most: i64,
    },
    /// A mean that is longer than any of its parts may be.
    #[error(
        "the mean's norm is {got}, above the clip norm {clip}: the masks did not cancel, or a \
         member sent something else than a clipped update"
    )]
    Norm {
        /// The mean's norm.
        got: f64,
        /// The clip norm.
        clip: f64,
    },
}

#[cfg(test)]
mod tests {
    use fedlora_common::digest::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::os_rng;
    use crate::fixed::{
        CohortWeight, Contribution, EncodedUpdate, LaneBits, LossShift, WeightClass,
    };

    fn add(bits: LaneBits, updates: &[EncodedUpdate]) -> RingSum {
        let mut sum = vec![0_u32; updates[0].lanes().len()];
        for update in updates {
            for (total, lane) in sum.iter_mut().zip(update.lanes()) {
                *total = total.wrapping_add(*lane) & bits.mask();
            }
        }
        RingSum(sum)
    }

    fn contribution(shift: &LossShift, clipped: bool) -> Contribution {
        Contribution {
            train_loss: shift.steps(2.5).unwrap(),
            eval_loss: shift.steps(3.0).unwrap(),
            clipped,
            worse: !clipped,
        }
    }

    fn format(bits: LaneBits, classes: &[u8]) -> (FixedPoint, SumParts) {
        let classes = classes
            .iter()
            .map(|&class| WeightClass::try_from(class).unwrap());
        let cohort = CohortWeight::of(classes);
        let format = FixedPoint::new(bits, 1.0, cohort, &Digest::of("test open", b"")).unwrap();
        let parts = SumParts {
            survivors: cohort.members,
            weight: cohort.total,
        };
        (format, parts)
    }

    #[test]
    fn a_sum_that_is_noise_is_refused() {
        let (format, parts) = format(LaneBits::B24, &[0; 3]);
        let refused = |lanes: &[i64]| {
            let lanes = lanes.iter().map(|&lane| LaneBits::B24.wrap(lane)).collect();
            format.decode(&RingSum(lanes), parts).unwrap_err()
        };
        assert_eq!(refused(&[1, 2]), SumError::Length { got: 2 });
        for (at, name) in [
            "training loss",
            "evaluation loss",
            "number of clipped updates",
            "number of votes",
        ]
        .into_iter()
        .enumerate()
        {
            for value in [-1, 1_000_000] {
                let mut lanes = [0; 2 + AUXILIARY_LANES];
                lanes[2 + at] = value;
                match refused(&lanes) {
                    SumError::Auxiliary { name: got, .. } => assert_eq!(got, name),
                    other => panic!("{other}"),
                }
            }
        }
        let most = LaneBits::B24.max();
        assert!(matches!(
            refused(&[most, most, 0, 0, 0, 0]),
            SumError::Norm { .. }
        ));
    }

    /// Three members' losses are 3 * 161 steps at most, and at most three updates were clipped, and as
    /// many members vote.
    #[test]
    fn auxiliary_lanes_are_as_large_as_all_members_make_them() {
        let (format, parts) = format(LaneBits::B24, &[0; 3]);
        let most = [483, 483, 3, 3];
        assert!(format.decode(&RingSum(most.to_vec()), parts).is_ok());
        for place in 0..AUXILIARY_LANES {
            let mut lanes = most.to_vec();
            lanes[place] += 1;
            let refused = format.decode(&RingSum(lanes), parts).unwrap_err();
            assert!(matches!(
                refused,
                SumError::Auxiliary { most: bound, .. } if bound == i64::from(most[place])
            ));
        }
    }

    #[test]
    fn losses_of_few_are_not_published() {
        let shift = LossShift::random(&mut os_rng());
        for (members, published) in [(4, false), (5, true)] {
            let (format, parts) = format(LaneBits::B24, &vec![0; members]);
            let encoded: Vec<_> = (0..members)
                .map(|place| {
                    let own = contribution(&shift, place < 2);
                    format
                        .encode(&[0.5], WeightClass::ONE, own, &mut os_rng())
                        .unwrap()
                })
                .collect();
            let mean = format.decode(&add(LaneBits::B24, &encoded), parts).unwrap();
            assert_eq!(mean.train_loss.is_some(), published);
            assert_eq!(mean.eval_loss.is_some(), published);
            assert_eq!(mean.clipped, published.then_some(2));
            assert_eq!(mean.votes, published.then_some(3));
        }
    }

    /// Larger than one block, with a spike that a range of the norm over sqrt(d) could not hold.
    #[test]
    fn the_error_is_as_documented() {
        let (members, length) = (10, 3 * (1 << 16) + 1000);
        for (bits, bound) in [(LaneBits::B20, 2e-4), (LaneBits::B24, 1.2e-5)] {
            let (format, parts) = format(bits, &vec![3; members]);
            let mut delta: Vec<f32> = (0..length)
                .map(|k| ((k * 37 % 101) as f32) - 50.0)
                .collect();
            delta[5] = 8000.0;
            let norm = delta
                .iter()
                .map(|x| f64::from(*x).powi(2))
                .sum::<f64>()
                .sqrt();
            for value in &mut delta {
                *value = (f64::from(*value) / norm * 0.999_999) as f32;
            }
            let shift = LossShift::random(&mut os_rng());
            let encoded: Vec<_> = (0..members)
                .map(|_| {
                    let class = WeightClass::try_from(3).unwrap();
                    let own = contribution(&shift, false);
                    format.encode(&delta, class, own, &mut os_rng()).unwrap()
                })
                .collect();
            let mean = format.decode(&add(bits, &encoded), parts).unwrap();
            let error = mean
                .delta
                .iter()
                .zip(&delta)
                .map(|(got, exact)| (f64::from(*got) - f64::from(*exact)).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!(error < bound, "{bits:?}: {error:e}");
        }
    }

    proptest! {
        #[test]
        fn the_decoded_sum_is_the_weighted_mean(
            bits in prop_oneof![Just(LaneBits::B20), Just(LaneBits::B24), Just(LaneBits::B32)],
            members in prop::collection::vec(
                (prop::collection::vec(-0.37f32..=0.37, 7), 0u8..=6), 1..9),
        ) {
            let classes: Vec<u8> = members.iter().map(|(_, class)| *class).collect();
            let (format, parts) = format(bits, &classes);
            let shift = LossShift::random(&mut os_rng());
            let encoded: Vec<_> = members
                .iter()
                .map(|(delta, class)| {
                    let class = WeightClass::try_from(*class).unwrap();
                    let own = contribution(&shift, false);
                    format.encode(delta, class, own, &mut os_rng()).unwrap()
                })
                .collect();
            let mean = format.decode(&add(bits, &encoded), parts).unwrap();
            // Each member is off by less than one lane, and the transform adds up to four.
            let unit = (bits.max() - members.len() as i64) as f64;
            let bound = 4.0 * members.len() as f64 / unit + 1e-5;
            for k in 0..7 {
                let exact: f64 = members
                    .iter()
                    .map(|(delta, class)| f64::from(delta[k]) * f64::from(1 << class))
                    .sum::<f64>() / parts.weight as f64;
                prop_assert!((f64::from(mean.delta[k]) - exact).abs() <= bound);
            }
        }
    }
}
