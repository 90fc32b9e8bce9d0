//! What a round's sums come to: the weighted mean of one sum, or the groups' means combined.
//!
//! Each group's sum is in the format of a round of that group alone, and must be one that honest
//! updates can have. A group whose sum is none is spoilt, and known to be: it is left out, and
//! counts among those that the rule withstands. What the rule gives is scaled down to the clip
//! where it is longer: a median of vectors can be longer than each of them.

use super::decode::AuxiliarySums;
use super::encode::sum_of_squares;
use super::{
    CohortWeight, FixedError, FixedPoint, LaneBits, RingSum, RobustRule, SumError, SumParts,
    WeightedMean,
};
use crate::ids::GroupIndex;
use fedlora_common::digest::{Digest, DigestWriter};

/// The unmasked sum of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSum {
    /// The group.
    pub group: GroupIndex,
    /// Its sum.
    pub sum: RingSum,
    /// Those of the group whose keys are in the round, for whom its format is made.
    pub cohort: CohortWeight,
    /// How many and how heavy its survivors are.
    pub parts: SumParts,
}

/// The unmasked sums of a round: what the aggregator learned, and all that it learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoundSum {
    groups: Vec<GroupSum>,
    rule: Option<RobustRule>,
}

impl RoundSum {
    /// The sums of the groups that have one, ascending, and the rule that combines their means;
    /// without a rule there is one sum, of all survivors.
    pub fn new(groups: Vec<GroupSum>, rule: Option<RobustRule>) -> Self {
        Self { groups, rule }
    }

    /// The sums, by group.
    pub fn groups(&self) -> &[GroupSum] {
        &self.groups
    }

    /// How many and how heavy all survivors are.
    pub fn parts(&self) -> SumParts {
        let groups = self.groups.iter();
        let (survivors, weight) = groups.fold((0, 0), |(survivors, weight), group| {
            (
                survivors + group.parts.survivors,
                weight + group.parts.weight,
            )
        });
        SumParts { survivors, weight }
    }

    /// The sum over all groups.
    pub fn total(&self, bits: LaneBits) -> RingSum {
        let mut groups = self.groups.iter();
        let mut total = groups.next().map_or_else(Vec::new, |one| one.sum.0.clone());
        for group in groups {
            for (total, lane) in total.iter_mut().zip(&group.sum.0) {
                *total = total.wrapping_add(*lane) & bits.mask();
            }
        }
        RingSum(total)
    }

    /// The digest of the one sum, or of the groups' sums in order.
    pub fn digest(&self) -> Digest {
        if let (None, [whole]) = (self.rule, &self.groups[..]) {
            return whole.sum.digest();
        }
        let mut writer = DigestWriter::new("fedlora 2 group sums");
        writer.number(self.groups.len() as u64);
        for group in &self.groups {
            writer.number(group.group.0.into());
            writer.digest(&group.sum.digest());
        }
        writer.finish()
    }

    /// The round's step, in the ring and with the clip of the M0 with the digest `open`; and the
    /// groups whose sums are none and were left out. What is told of losses is over the others.
    ///
    /// # Errors
    /// [`RoundSumError`] where the one sum is none, or more groups' than the rule withstands.
    pub fn decode(
        &self,
        bits: LaneBits,
        clip: f32,
        open: &Digest,
    ) -> Result<(WeightedMean, Vec<SpoiltGroup>), RoundSumError> {
        let mut means = Vec::new();
        let mut spoilt = Vec::new();
        let mut auxiliary = AuxiliarySums::default();
        let mut survivors = 0;
        for group in &self.groups {
            let format = FixedPoint::new(bits, clip, group.cohort, open)?;
            match format.decode_parts(&group.sum, group.parts) {
                Ok((mean, own)) => {
                    means.push(mean);
                    auxiliary = auxiliary.plus(own);
                    survivors += group.parts.survivors;
                }
                Err(reason) => spoilt.push(SpoiltGroup {
                    group: group.group,
                    reason,
                }),
            }
        }
        let most = self
            .rule
            .map_or(0, |rule| rule.withstands(self.groups.len()));
        if let Some(first) = spoilt.first()
            && spoilt.len() > most
        {
            return Err(RoundSumError::Spoilt {
                got: spoilt.len(),
                most,
                reason: first.reason,
            });
        }
        let delta = match self.rule {
            None => means.pop().ok_or(RoundSumError::Empty)?,
            Some(_) if means.is_empty() => return Err(RoundSumError::Empty),
            Some(rule) => within(rule.without(spoilt.len()).combine(&means), clip),
        };
        Ok((auxiliary.beside(delta, survivors), spoilt))
    }
}

/// A group whose sum honest updates cannot have: one of its members is malicious.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpoiltGroup {
    /// The group.
    pub group: GroupIndex,
    /// What is wrong with its sum.
    pub reason: SumError,
}

/// Scales a vector that is longer than the clip down to it.
fn within(mut delta: Vec<f32>, clip: f32) -> Vec<f32> {
    let norm = sum_of_squares(&delta).sqrt();
    if norm > f64::from(clip) {
        let scale = f64::from(clip) / norm;
        for value in &mut delta {
            *value = (f64::from(*value) * scale) as f32;
        }
    }
    delta
}

/// Why a round's sums give no step.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RoundSumError {
    /// No sum is there.
    #[error("the round has no sum")]
    Empty,
    /// The sum is none, or those of more groups than the rule withstands.
    #[error("{got} of the round's sums are none, {most} may be: {reason}")]
    Spoilt {
        /// Sums that are none.
        got: usize,
        /// As many may be.
        most: usize,
        /// What is wrong with the first of them.
        reason: SumError,
    },
    /// The round's numbers give no fixed-point format.
    #[error(transparent)]
    Format(#[from] FixedError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;
    use crate::fixed::{AUXILIARY_LANES, Contribution, LossShift, WeightClass};

    const BITS: LaneBits = LaneBits::B24;
    const CLIP: f32 = 1.0;
    const LENGTH: usize = 8;

    fn open() -> Digest {
        Digest::of("test open", b"")
    }

    /// The sum of three members with this delta each, all of weight 2.
    fn group(number: u16, delta: [f32; LENGTH]) -> GroupSum {
        let class = WeightClass::try_from(1).unwrap();
        let cohort = CohortWeight::of([class; 3]);
        let format = FixedPoint::new(BITS, CLIP, cohort, &open()).unwrap();
        let shift = LossShift::random(&mut os_rng());
        let contribution = Contribution {
            train_loss: shift.steps(2.0).unwrap(),
            eval_loss: shift.steps(3.0).unwrap(),
            clipped: number == 0,
            worse: number == 2,
        };
        let mut sum = vec![0_u32; LENGTH + AUXILIARY_LANES];
        for _ in 0..3 {
            let encoded = format
                .encode(&delta, class, contribution, &mut os_rng())
                .unwrap();
            for (sum, lane) in sum.iter_mut().zip(encoded.lanes()) {
                *sum = sum.wrapping_add(*lane) & BITS.mask();
            }
        }
        GroupSum {
            group: GroupIndex(number),
            sum: RingSum(sum),
            cohort,
            parts: SumParts {
                survivors: 3,
                weight: 6,
            },
        }
    }

    /// A sum that no honest updates have.
    fn noise(number: u16) -> GroupSum {
        let mut group = group(number, [0.0; LENGTH]);
        for lane in &mut group.sum.0[..LENGTH] {
            *lane = BITS.max() as u32;
        }
        group
    }

    fn decode(groups: Vec<GroupSum>, rule: RobustRule) -> Result<(Vec<f32>, usize), RoundSumError> {
        let decoded = RoundSum::new(groups, Some(rule)).decode(BITS, CLIP, &open());
        decoded.map(|(mean, spoilt)| (mean.delta, spoilt.len()))
    }

    fn close(got: &[f32], expected: f32) -> bool {
        got.iter().all(|x| (x - expected).abs() < 1e-5)
    }

    const MEDIAN: RobustRule = RobustRule::Median;

    #[test]
    fn one_group_far_out_does_not_steer_the_step() {
        let groups = |bad: f32| {
            let deltas = [[0.1; LENGTH], [bad; LENGTH], [0.11; LENGTH]];
            (0..)
                .zip(deltas)
                .map(|(place, delta)| group(place, delta))
                .collect()
        };
        let (step, _) = decode(groups(-0.35), MEDIAN).unwrap();
        assert!(close(&step, 0.1), "{step:?}");
        let (step, _) = decode(groups(0.35), MEDIAN).unwrap();
        assert!(close(&step, 0.11), "{step:?}");
        let trimmed = RobustRule::TrimmedMean { trim: 1 };
        let (step, _) = decode(groups(0.35), trimmed).unwrap();
        assert!(close(&step, 0.11), "{step:?}");
    }

    #[test]
    fn groups_whose_sums_are_none_are_left_out_as_far_as_the_rule_goes() {
        let good = |number| group(number, [f32::from(number) / 10.0; LENGTH]);
        let (step, spoilt) = decode(vec![good(0), noise(1), good(2)], MEDIAN).unwrap();
        assert_eq!(spoilt, 1);
        assert!(close(&step, 0.1), "{step:?}");
        let two = decode(vec![noise(0), noise(1), good(2)], MEDIAN);
        assert!(matches!(
            two,
            Err(RoundSumError::Spoilt {
                got: 2,
                most: 1,
                ..
            })
        ));
        // With one known to be spoilt, one less is cut at either end: here none.
        let trimmed = RobustRule::TrimmedMean { trim: 1 };
        let groups = vec![noise(0), good(1), good(2), good(3)];
        let (step, spoilt) = decode(groups, trimmed).unwrap();
        assert_eq!(spoilt, 1);
        assert!(close(&step, 0.2), "{step:?}");
        let whole = RoundSum::new(vec![noise(0)], None).decode(BITS, CLIP, &open());
        assert!(matches!(
            whole,
            Err(RoundSumError::Spoilt {
                got: 1,
                most: 0,
                ..
            })
        ));
    }

    #[test]
    fn a_round_without_a_sum_has_no_step() {
        assert_eq!(decode(Vec::new(), MEDIAN), Err(RoundSumError::Empty));
        let one = RoundSum::new(Vec::new(), None).decode(BITS, CLIP, &open());
        assert!(matches!(one, Err(RoundSumError::Empty)));
    }

    /// Three vectors of the clip's norm, each coordinate long in two of them.
    #[test]
    fn a_median_longer_than_the_clip_is_scaled_down_to_it() {
        let x = 0.5_f32;
        let deltas = [
            [x, x, x, x, 0.0, 0.0, 0.0, 0.0],
            [x, x, 0.0, 0.0, x, x, 0.0, 0.0],
            [0.0, 0.0, x, x, x, x, 0.0, 0.0],
        ];
        let groups = (0..).zip(deltas).map(|(place, delta)| group(place, delta));
        let (step, _) = decode(groups.collect(), MEDIAN).unwrap();
        let norm = sum_of_squares(&step).sqrt();
        assert!((norm - 1.0).abs() < 1e-6, "{norm}");
        assert!(close(&step[..6], 1.0 / 6.0_f32.sqrt()), "{step:?}");
    }

    #[test]
    fn losses_are_over_all_groups_that_count() {
        let groups = vec![group(0, [0.1; LENGTH]), noise(1), group(2, [0.1; LENGTH])];
        let sum = RoundSum::new(groups, Some(MEDIAN));
        let (mean, _) = sum.decode(BITS, CLIP, &open()).unwrap();
        assert!((mean.train_loss.unwrap() - 2.0).abs() < 0.2);
        assert!((mean.eval_loss.unwrap() - 3.0).abs() < 0.2);
        assert_eq!((mean.clipped, mean.votes), (Some(3), Some(3)));
        let parts = sum.parts();
        assert_eq!((parts.survivors, parts.weight), (9, 18));
    }

    #[test]
    fn the_digest_is_over_every_groups_number_and_sum() {
        let one = |number| group(number, [0.0; LENGTH]);
        let (a, b, c) = (one(0), one(1), noise(2));
        let sums = [
            RoundSum::new(vec![a.clone()], None),
            RoundSum::new(vec![a.clone()], Some(MEDIAN)),
            RoundSum::new(vec![a.clone(), b.clone()], Some(MEDIAN)),
            RoundSum::new(
                vec![
                    a.clone(),
                    GroupSum {
                        group: GroupIndex(2),
                        ..b
                    },
                ],
                Some(MEDIAN),
            ),
            RoundSum::new(vec![a.clone(), c], Some(MEDIAN)),
        ];
        let digests: std::collections::BTreeSet<_> =
            sums.iter().map(|sum| sum.digest().to_string()).collect();
        assert_eq!(digests.len(), sums.len());
        assert_eq!(sums[0].digest(), a.sum.digest());
    }

    #[test]
    fn the_total_is_that_of_all_groups() {
        let (a, b) = (group(0, [0.1; LENGTH]), noise(1));
        let total = RoundSum::new(vec![a.clone(), b.clone()], Some(MEDIAN)).total(BITS);
        for ((total, a), b) in total.0.iter().zip(&a.sum.0).zip(&b.sum.0) {
            assert_eq!(*total, a.wrapping_add(*b) & BITS.mask());
        }
    }
}
