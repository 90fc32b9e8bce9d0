//! How long examples are, in a few numbers.

use serde::Serialize;

/// The distribution of lengths in tokens. Percentiles are by nearest rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lengths {
    /// Length of the shortest example, in tokens.
    pub min: usize,
    /// Half of the examples are no longer, in tokens.
    pub median: usize,
    /// Nine in ten are no longer.
    pub p90: usize,
    /// Ninety-nine in a hundred are no longer.
    pub p99: usize,
    /// Length of the longest example, in tokens.
    pub max: usize,
    /// Mean length, in tokens.
    pub mean: f64,
    /// Numbers by length, up to the next power of two each.
    pub histogram: Vec<LengthBin>,
}

/// Lengths of more than half of `up_to`, to `up_to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LengthBin {
    /// A power of two.
    pub up_to: usize,
    /// How many there are.
    pub count: usize,
}

impl Lengths {
    /// Summarises lengths; `None` where there are none.
    pub fn of(lengths: &[usize]) -> Option<Self> {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let bound = |length: usize| length.max(1).next_power_of_two();
        let mut histogram = Vec::new();
        let (mut up_to, mut below) = (bound(min), 0);
        loop {
            let through = sorted.partition_point(|&length| length <= up_to);
            histogram.push(LengthBin {
                up_to,
                count: through - below,
            });
            if through == sorted.len() {
                break;
            }
            (up_to, below) = (2 * up_to, through);
        }
        Some(Self {
            min,
            median: rank(50),
            p90: rank(90),
            p99: rank(99),
            max,
            mean: sorted.iter().sum::<usize>() as f64 / sorted.len() as f64,
            histogram,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let lengths: Vec<_> = (1..=200).rev().collect();
        let found = Lengths::of(&lengths).unwrap();
        assert_eq!(
            (found.min, found.median, found.p90, found.p99, found.max),
            (1, 100, 180, 198, 200)
        );
        assert_eq!(found.mean, 100.5);
        let one = Lengths::of(&[7]).unwrap();
        assert_eq!((one.min, one.median, one.p99, one.max), (7, 7, 7, 7));
        assert_eq!(Lengths::of(&[]), None);
    }

    #[test]
    fn bins_hold_every_length_once() {
        let found = Lengths::of(&[3, 4, 5, 8, 9, 40, 0]).unwrap();
        let bins: Vec<_> = found.histogram.iter().map(|b| (b.up_to, b.count)).collect();
        assert_eq!(
            bins,
            [(1, 1), (2, 0), (4, 2), (8, 2), (16, 1), (32, 0), (64, 1)]
        );
    }
}
