//! How the means of several groups become one step that a few spoilt groups cannot steer:
//! coordinate by coordinate, the median or the trimmed mean (Yin, Chen, Ramchandran, Bartlett,
//! "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018). Groups
//! count alike, whatever their members weigh: a heavy group would be worth spoiling.
//!
//! Both rules keep a coordinate between the smallest and the largest that an unspoilt group has,
//! as long as the spoilt groups are no more than [`RobustRule::withstands`] says.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Coordinates that a thread combines at a time.
const CHUNK: usize = 1 << 12;

/// The rule that combines the groups' means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RobustRule {
    /// The median; of an even number of groups the mean of the two in the middle.
    Median,
    /// The mean without the `trim` smallest and the `trim` largest values.
    TrimmedMean {
        /// Values left out at either end, at least 1.
        trim: usize,
    },
}

impl RobustRule {
    /// The fewest groups that the rule is for.
    pub fn needed_groups(self) -> usize {
        match self {
            Self::Median => 3,
            Self::TrimmedMean { trim } => 2 * trim + 1,
        }
    }

    /// How many of `groups` groups may be spoilt.
    pub fn withstands(self, groups: usize) -> usize {
        match self {
            Self::Median => groups.saturating_sub(1) / 2,
            Self::TrimmedMean { trim } => trim,
        }
    }

    /// The rule for the groups that stay where `known` of those that it withstands are known to be
    /// spoilt, and left out.
    pub(super) fn without(self, known: usize) -> Self {
        match self {
            Self::Median => Self::Median,
            Self::TrimmedMean { trim } => Self::TrimmedMean {
                trim: trim.saturating_sub(known),
            },
        }
    }

    /// Combines the groups' means, all finite and of one length, coordinate by coordinate. Sums are
    /// in f64, in ascending order.
    ///
    /// # Panics
    /// Without a group, or with fewer groups than the rule leaves out.
    pub fn combine(self, means: &[Vec<f32>]) -> Vec<f32> {
        let mut combined = vec![0.0; means[0].len()];
        combined
            .par_chunks_mut(CHUNK)
            .enumerate()
            .for_each(|(place, chunk)| {
                let mut values = vec![0.0; means.len()];
                for (offset, combined) in chunk.iter_mut().enumerate() {
                    let at = place * CHUNK + offset;
                    for (value, mean) in values.iter_mut().zip(means) {
                        *value = mean[at];
                    }
                    values.sort_unstable_by(f32::total_cmp);
                    *combined = self.middle(&values);
                }
            });
        combined
    }

    /// What is left of ascending values.
    fn middle(self, ascending: &[f32]) -> f32 {
        let count = ascending.len();
        let trim = match self {
            Self::Median => (count - 1) / 2,
            Self::TrimmedMean { trim } => trim,
        };
        let kept = &ascending[trim..count - trim];
        let sum: f64 = kept.iter().map(|&x| f64::from(x)).sum();
        (sum / kept.len() as f64) as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    const MEDIAN: RobustRule = RobustRule::Median;

    fn trimmed(trim: usize) -> RobustRule {
        RobustRule::TrimmedMean { trim }
    }

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        means: Vec<Vec<f32>>,
        median: Vec<f64>,
        trimmed: Vec<Trimmed>,
    }

    #[derive(Deserialize)]
    struct Trimmed {
        trim: usize,
        mean: Vec<f64>,
    }

    /// The file's head names the versions of NumPy and SciPy.
    #[test]
    fn the_rules_are_those_of_numpy_and_scipy() {
        let golden = include_str!("../../../vectors/robust.json");
        let golden: Golden = serde_json::from_str(golden).unwrap();
        assert!(golden.cases.len() >= 5);
        let check = |rule: RobustRule, means: &[Vec<f32>], expected: &[f64]| {
            let combined = rule.combine(means);
            assert_eq!(combined.len(), expected.len());
            for (got, expected) in combined.iter().zip(expected) {
                // Half of an f32's last bit.
                let error = (f64::from(*got) - expected).abs();
                assert!(error <= 6e-8 * expected.abs() + 1e-12, "{got} {expected}");
            }
        };
        for case in golden.cases {
            check(MEDIAN, &case.means, &case.median);
            for Trimmed { trim, mean } in case.trimmed {
                check(trimmed(trim), &case.means, &mean);
            }
        }
    }

    #[test]
    fn a_long_vector_is_combined_as_a_short_one() {
        let len = 2 * CHUNK + 3;
        let mean = |group: usize| -> Vec<f32> {
            (0..len)
                .map(|k| ((k * 31 + group * 57) % 101) as f32)
                .collect()
        };
        let means: Vec<_> = (0..4).map(mean).collect();
        for rule in [MEDIAN, trimmed(1)] {
            let combined = rule.combine(&means);
            for at in [0, CHUNK - 1, CHUNK, len - 1] {
                let one: Vec<_> = means.iter().map(|mean| vec![mean[at]]).collect();
                assert_eq!(combined[at], rule.combine(&one)[0]);
            }
        }
    }

    #[test]
    fn as_many_as_a_rule_withstands_are_less_than_half() {
        for groups in 3..20 {
            assert!(2 * MEDIAN.withstands(groups) < groups);
            assert!(2 * (MEDIAN.withstands(groups) + 1) >= groups);
        }
        assert_eq!(
            (trimmed(2).needed_groups(), trimmed(2).withstands(9)),
            (5, 2)
        );
        assert_eq!(trimmed(2).without(1), trimmed(1));
        assert_eq!(MEDIAN.without(1), MEDIAN);
    }

    proptest! {
        /// Whatever the spoilt ones say, each coordinate stays among those of the others.
        #[test]
        fn spoilt_groups_do_not_lead_out_of_the_others_range(
            good in prop::collection::vec(-1.0_f32..1.0, 1..12),
            spoilt in prop::collection::vec(prop::num::f32::NORMAL, 0..5),
            trim in 0_usize..5,
        ) {
            let groups = good.len() + spoilt.len();
            let means: Vec<_> = good.iter().chain(&spoilt).map(|&x| vec![x]).collect();
            let low = good.iter().copied().fold(f32::INFINITY, f32::min);
            let high = good.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for rule in [MEDIAN, trimmed(trim)] {
                if groups < rule.needed_groups() || spoilt.len() > rule.withstands(groups) {
                    continue;
                }
                let combined = rule.combine(&means)[0];
                prop_assert!((low..=high).contains(&combined), "{combined}");
            }
        }
    }
}
