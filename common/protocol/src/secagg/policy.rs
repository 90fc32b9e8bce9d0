//! How many members may collude, must answer, and must contribute.

use serde::{Deserialize, Serialize};

/// The fewest honest contributors in any sum that is revealed.
pub const MIN_HONEST_CONTRIBUTORS: usize = 3;

/// The largest roster: every member shares secrets with every other, and up to here that
/// costs less than a sparse graph would.
pub const MAX_COHORT: usize = 64;

/// Threshold, minimum and quorum of secure aggregation among `members` members.
///
/// With c = floor((n - 1) / 3) colluding members beside a malicious aggregator, two
/// different survivor lists cannot both gather t = floor((n + c) / 2) + 1 signatures: the two
/// groups of signers would share more than c members, one of them honest, and an honest
/// member signs one list (Bonawitz et al. 2017, section 6.2 and theorem 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortPolicy {
    members: usize,
    minimum: usize,
}

impl CohortPolicy {
    /// The policy for a roster of `members`, at least `minimum` of them in every sum.
    ///
    /// # Errors
    /// [`PolicyError`] where the roster is too small or large, or `minimum` is below the
    /// floor or above the roster.
    pub fn new(members: usize, minimum: usize) -> Result<Self, PolicyError> {
        if !(MIN_HONEST_CONTRIBUTORS..=MAX_COHORT).contains(&members) {
            return Err(PolicyError::Members { got: members });
        }
        let policy = Self { members, minimum };
        let floor = Self::lowest_minimum(members);
        if minimum < floor || minimum > members {
            return Err(PolicyError::Minimum {
                got: minimum,
                floor,
                members,
            });
        }
        Ok(policy)
    }

    /// The policy with the lowest minimum that a roster of `members` allows.
    ///
    /// # Errors
    /// As [`CohortPolicy::new`].
    pub fn lowest(members: usize) -> Result<Self, PolicyError> {
        Self::new(members, Self::lowest_minimum(members))
    }

    /// Members in the roster: n.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The most colluding members that the protocol tolerates: c = floor((n - 1) / 3).
    pub fn colluders(&self) -> usize {
        Self::colluders_among(self.members)
    }

    /// Shares that recover a secret, and signatures that confirm a list:
    /// t = floor((n + c) / 2) + 1.
    pub fn threshold(&self) -> usize {
        (self.members + self.colluders()) / 2 + 1
    }

    /// The fewest contributors that the plan allows in a sum.
    pub fn minimum(&self) -> usize {
        self.minimum
    }

    /// The fewest members that a phase may close with: max(threshold, minimum).
    pub fn quorum(&self) -> usize {
        self.threshold().max(self.minimum)
    }

    fn colluders_among(members: usize) -> usize {
        members.saturating_sub(1) / 3
    }

    fn lowest_minimum(members: usize) -> usize {
        Self::colluders_among(members) + MIN_HONEST_CONTRIBUTORS
    }
}

/// A cohort that secure aggregation cannot protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Too few members, or too many.
    #[error("{got} members: a secure sum needs 3 to 64")]
    Members {
        /// The roster's size.
        got: usize,
    },
    /// A minimum that could reveal a sum of fewer than three honest members, or cannot be met.
    #[error("a minimum of {got} contributors among {members} members: use {floor} to {members}")]
    Minimum {
        /// The minimum asked for.
        got: usize,
        /// The lowest minimum allowed.
        floor: usize,
        /// The roster's size.
        members: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lists_cannot_both_be_confirmed() {
        for members in 3..=MAX_COHORT {
            let policy = CohortPolicy::lowest(members).unwrap();
            // Signers of two lists overlap in at least 2t - n members: more than collude.
            assert!(2 * policy.threshold() - members > policy.colluders());
            assert!(policy.quorum() <= members, "{members} could never finish");
            assert!(policy.quorum() >= policy.colluders() + MIN_HONEST_CONTRIBUTORS);
        }
    }

    #[test]
    fn impossible_cohorts_are_refused() {
        assert!(CohortPolicy::lowest(2).is_err());
        assert!(CohortPolicy::lowest(65).is_err());
        assert!(CohortPolicy::new(6, 3).is_err());
        assert!(CohortPolicy::new(6, 4).is_ok());
        assert!(CohortPolicy::new(6, 7).is_err());
    }
}
