//! How many neighbours a member of a sparse graph has, and how many shares recover its secrets.
//!
//! The ring of [`NeighbourGraph`](super::graph::NeighbourGraph) is random, so the k neighbours
//! of a member are a uniform subset of the n - 1 others, and how many of them collude or drop
//! out is hypergeometric (Bell et al., CCS 2020). The bounds here are exact tails, summed over
//! all members.
//!
//! The members that stay must be connected too, or their sum falls apart into several: that takes
//! two runs of k / 2 places of the ring, all of them gone. For every row of its table
//! `common/vectors/make_sparse_parameters.py` shows that c colluding and d dropping members, all
//! at random, have such runs with probability below 2^-40. Nothing here speaks of an aggregator
//! that chooses whom to leave out once it knows the ring.

use super::graph::{MAX_HOLDERS, MAX_MEMBERS};
use super::policy::MAX_COMPLETE;

/// The expected number of members whose secrets the colluding members can recover is at most
/// 2 to the power of minus this.
pub const PRIVACY_BITS: u32 = 40;

/// The expected number of members whose secrets too few are left to recover is at most 2 to the
/// power of minus this.
pub const RECOVERY_BITS: u32 = 30;

/// Neighbours and threshold of a sparse graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseParameters {
    /// Neighbours of each member: k.
    pub neighbours: usize,
    /// Shares, of the k + 1 that its holders have, that recover a member's secret: t.
    pub threshold: usize,
}

/// The fewest neighbours with which `members` (65 to 65,536) withstand the share `colluding` of
/// members that collude with the aggregator and the share `dropping` of members that drop out
/// at random. Both shares are in \[0, 1/3).
///
/// With c and d these shares of n members, rounded up to whole members, k is the smallest even
/// number below n - 1 for which
///
/// - privacy: n P\[at least t of k neighbours collude\] <= 2^-40, and
/// - recovery: n P\[fewer than t of k neighbours stay\] <= 2^-30,
///
/// where t is the smallest number above k / 2 that meets privacy. The member's own share counts
/// in neither bound. At most 255 members hold a secret, so k is at most 254; up to 255 members
/// there always is such a k.
///
/// A probability is a sum of at most 255 products of at most 508 quotients, all positive, so that
/// rounding moves it by less than 2^-42 of itself. A bound must hold with 2^-32 of it to spare.
/// Only what IEEE 754 rounds exactly is used, no logarithm: every machine finds the same.
///
/// # Errors
/// [`ParameterError`] for a number or a share out of range, and for shares that no graph of at
/// most 255 holders withstands.
pub fn sparse_parameters(
    members: usize,
    colluding: f64,
    dropping: f64,
) -> Result<SparseParameters, ParameterError> {
    if members <= MAX_COMPLETE || members > MAX_MEMBERS {
        return Err(ParameterError::Members { got: members });
    }
    if !in_range(colluding) {
        return Err(ParameterError::Colluding { got: colluding });
    }
    if !in_range(dropping) {
        return Err(ParameterError::Dropping { got: dropping });
    }
    let (colluders, dropouts) = (share_of(members, colluding), share_of(members, dropping));
    search(members, colluders, dropouts).ok_or_else(|| {
        // Without colluding members too?
        match search(members, 0, dropouts) {
            None => ParameterError::TooManyDropping { dropping, members },
            Some(_) => ParameterError::TooManyTogether {
                colluding,
                dropping,
                members,
            },
        }
    })
}

/// The members that may drop out of a round by the share `dropping` of them, in \[0, 1/3).
///
/// # Errors
/// [`ParameterError::Dropping`] for a share out of range.
pub fn dropouts(members: usize, dropping: f64) -> Result<usize, ParameterError> {
    if !in_range(dropping) {
        return Err(ParameterError::Dropping { got: dropping });
    }
    Ok(share_of(members, dropping))
}

fn in_range(share: f64) -> bool {
    (0.0..1.0 / 3.0).contains(&share)
}

/// The members that `share` of them is, rounded up; what exceeds a whole member by less than a
/// millionth of one is taken for the rounding of a decimal fraction.
pub(super) fn share_of(members: usize, share: f64) -> usize {
    (members as f64 * share - 1e-6).ceil().max(0.0) as usize
}

fn search(members: usize, colluders: usize, dropouts: usize) -> Option<SparseParameters> {
    let mut degrees = (2..MAX_HOLDERS.min(members - 1)).step_by(2);
    degrees.find_map(|neighbours| {
        let colluding = Hypergeometric::new(members - 1, colluders, neighbours);
        let threshold = colluding.private_threshold(members, neighbours)?;
        let dropping = Hypergeometric::new(members - 1, dropouts, neighbours);
        let lost = dropping.at_least(neighbours - threshold + 1);
        holds(members, lost, RECOVERY_BITS).then_some(SparseParameters {
            neighbours,
            threshold,
        })
    })
}

/// Whether `members` times `probability` is at most 2^-`bits`, and not so by rounding only.
fn holds(members: usize, probability: f64, bits: u32) -> bool {
    let margin = 1.0 + 1.0 / (1_u64 << 32) as f64;
    members as f64 * probability * margin <= 1.0 / (1_u64 << bits) as f64
}

/// How many marked ones are among some drawn without replacement.
pub(super) struct Hypergeometric {
    /// The fewest marked ones that can be drawn.
    least: usize,
    /// The probability of each number of marked ones, from `least` on.
    probabilities: Vec<f64>,
}

impl Hypergeometric {
    /// Draws `drawn`, at most 254, of `population`, of which at most a third and one more are
    /// `marked`.
    pub(super) fn new(population: usize, marked: usize, drawn: usize) -> Self {
        let plain = population - marked;
        let least = drawn.saturating_sub(plain);
        let most = drawn.min(marked);
        // With `least` 0, all that are drawn are plain; otherwise all that are not drawn are
        // marked. Both probabilities are far above the smallest f64, about 2^-400 at the least.
        // What underflows further on is far below every bound.
        let (size, among) = if least == 0 {
            (drawn, plain)
        } else {
            (population - drawn, marked)
        };
        let mut probability: f64 = (0..size)
            .map(|k| (among - k) as f64 / (population - k) as f64)
            .product();
        let mut probabilities = vec![probability];
        for x in least..most {
            // P(x + 1) / P(x), of whole numbers below 2^53.
            let up = (marked - x) * (drawn - x);
            let down = (x + 1) * (plain + x + 1 - drawn);
            probability *= up as f64 / down as f64;
            probabilities.push(probability);
        }
        Self {
            least,
            probabilities,
        }
    }

    /// P\[at least `number` marked ones\].
    pub(super) fn at_least(&self, number: usize) -> f64 {
        let skipped = number.saturating_sub(self.least);
        // The smallest ones first.
        self.probabilities.iter().skip(skipped).rev().sum()
    }

    /// The smallest threshold above half of the drawn that the marked ones reach seldom enough.
    fn private_threshold(&self, members: usize, drawn: usize) -> Option<usize> {
        (drawn / 2 + 1..=drawn).find(|&t| holds(members, self.at_least(t), PRIVACY_BITS))
    }
}

/// Assumptions for which there are no parameters.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// As few members as share with all others, or more than have an index.
    #[error("{got} members: a sparse graph has {} to {MAX_MEMBERS}", MAX_COMPLETE + 1)]
    Members {
        /// The number of members.
        got: usize,
    },
    /// A share of colluding members out of range.
    #[error("{got} as the share of colluding members: it is at least 0 and below 1/3")]
    Colluding {
        /// The share asked for.
        got: f64,
    },
    /// A share of dropping members out of range.
    #[error("{got} as the share of members that drop out: it is at least 0 and below 1/3")]
    Dropping {
        /// The share asked for.
        got: f64,
    },
    /// More drop out than any graph withstands, even if none colludes.
    #[error(
        "no graph in which {MAX_HOLDERS} hold a secret withstands a share of {dropping} of \
         {members} members that drop out: lower that share"
    )]
    TooManyDropping {
        /// The share asked for.
        dropping: f64,
        /// The number of members.
        members: usize,
    },
    /// What drops out alone could be withstood, but not together with what colludes.
    #[error(
        "no graph in which {MAX_HOLDERS} hold a secret withstands that of {members} members a \
         share of {colluding} collude and a share of {dropping} drop out: lower either"
    )]
    TooManyTogether {
        /// The share of colluding members asked for.
        colluding: f64,
        /// The share of dropping members asked for.
        dropping: f64,
        /// The number of members.
        members: usize,
    },
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Table {
        rows: Vec<Row>,
    }

    #[derive(Deserialize)]
    struct Row {
        members: usize,
        colluding_share: String,
        dropping_share: String,
        colluding: usize,
        dropping: usize,
        neighbours: usize,
        threshold: usize,
        privacy_log2: Option<f64>,
        recovery_log2: Option<f64>,
    }

    /// The table's numbers are exact fractions, by a program of its own.
    #[test]
    fn the_exact_table_is_reproduced() {
        let table = include_str!("../../../vectors/sparse_parameters.json");
        let table: Table = serde_json::from_str(table).unwrap();
        assert_eq!(table.rows.len(), 24);
        for row in table.rows {
            let Row {
                members,
                neighbours,
                threshold,
                ..
            } = row;
            let shares = [&row.colluding_share, &row.dropping_share].map(|s| s.parse().unwrap());
            let found = sparse_parameters(members, shares[0], shares[1]).unwrap();
            assert_eq!(
                found,
                SparseParameters {
                    neighbours,
                    threshold
                }
            );
            let counts = shares.map(|share| share_of(members, share));
            assert_eq!(counts, [row.colluding, row.dropping]);
            let tails = [threshold, neighbours - threshold + 1];
            let exact = [row.privacy_log2, row.recovery_log2];
            for ((marked, least), exact) in counts.into_iter().zip(tails).zip(exact) {
                let drawn = Hypergeometric::new(members - 1, marked, neighbours);
                let bound = members as f64 * drawn.at_least(least);
                match exact {
                    Some(exact) => assert!((bound.log2() - exact).abs() < 1e-9),
                    None => assert_eq!(bound, 0.0),
                }
            }
        }
    }

    #[test]
    fn parameters_meet_both_bounds_and_the_next_smaller_do_not() {
        // In the first two, a member that is counted among its own neighbours changes the numbers.
        for (members, colluding, dropping) in [
            (110, 22, 11),
            (135, 14, 41),
            (300, 20, 30),
            (1000, 50, 50),
            (4096, 900, 100),
        ] {
            let SparseParameters {
                neighbours,
                threshold,
            } = search(members, colluding, dropping).unwrap();
            let reached = |k, t| {
                let private = Hypergeometric::new(members - 1, colluding, k).at_least(t);
                let lost = Hypergeometric::new(members - 1, dropping, k).at_least(k - t + 1);
                holds(members, private, PRIVACY_BITS) && holds(members, lost, RECOVERY_BITS)
            };
            assert!(reached(neighbours, threshold));
            assert!(
                !(threshold / 2..threshold).any(|t| 2 * t > neighbours && reached(neighbours, t))
            );
            let k = neighbours - 2;
            assert!(!(k / 2 + 1..=k).any(|t| reached(k, t)));
        }
    }

    #[test]
    fn a_bound_needs_a_margin() {
        let limit = 1.0 / (1_u64 << (PRIVACY_BITS + 10)) as f64;
        for (factor, expected) in [
            (0.9, true),
            (1.0 - 1e-9, true),
            (1.0 - 1e-10, false),
            (1.0, false),
        ] {
            assert_eq!(
                holds(1024, limit * factor, PRIVACY_BITS),
                expected,
                "{factor}"
            );
        }
    }

    #[test]
    fn shares_are_rounded_up_to_whole_members() {
        for (members, share, expected) in [
            (1000, 0.05, 50),
            (1000, 0.050_001, 51),
            (700, 0.07, 49),
            (65, 0.05, 4),
            (65, 0.0, 0),
            (100, 1e-12, 0),
            (65_536, 0.3, 19_661),
        ] {
            assert_eq!(share_of(members, share), expected, "{share} of {members}");
        }
    }

    #[test]
    fn probabilities_sum_to_one() {
        for (population, marked, drawn) in [
            (64, 21, 62),
            (64, 21, 64),
            (64, 0, 2),
            (254, 84, 253),
            (65_535, 21_845, 254),
        ] {
            let whole = Hypergeometric::new(population, marked, drawn).at_least(0);
            assert!((whole - 1.0).abs() < 1e-12, "{whole}");
        }
    }

    #[test]
    fn up_to_255_members_there_are_parameters_for_every_share() {
        for members in MAX_COMPLETE + 1..=MAX_HOLDERS {
            let SparseParameters {
                neighbours,
                threshold,
            } = sparse_parameters(members, 0.333_333, 0.333_333).unwrap();
            assert!(threshold <= neighbours && neighbours < members - 1);
            assert!(2 * threshold > neighbours);
        }
    }

    #[test]
    fn impossible_assumptions_are_refused() {
        let members = 64;
        for got in [0, members, MAX_MEMBERS + 1] {
            assert_eq!(
                sparse_parameters(got, 0.1, 0.1),
                Err(ParameterError::Members { got })
            );
        }
        for got in [-0.01, 1.0 / 3.0, 1.0, f64::INFINITY] {
            assert_eq!(
                sparse_parameters(100, got, 0.1),
                Err(ParameterError::Colluding { got })
            );
            assert_eq!(
                sparse_parameters(100, 0.1, got),
                Err(ParameterError::Dropping { got })
            );
        }
        assert!(sparse_parameters(100, f64::NAN, 0.1).is_err());
        assert!(sparse_parameters(100, 0.1, f64::NAN).is_err());
        let (members, dropping) = (5000, 0.333);
        assert_eq!(
            sparse_parameters(members, 0.0, dropping),
            Err(ParameterError::TooManyDropping { dropping, members })
        );
        let (colluding, dropping) = (0.333, 0.25);
        assert_eq!(
            sparse_parameters(members, colluding, dropping),
            Err(ParameterError::TooManyTogether {
                colluding,
                dropping,
                members
            })
        );
        // Whoever collude, if none drops out.
        assert!(sparse_parameters(members, 0.333, 0.0).is_ok());
        assert!(sparse_parameters(MAX_MEMBERS, 0.333, 0.0).is_ok());
    }
}
