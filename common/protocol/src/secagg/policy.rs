//! How many members may collude, must answer, and must contribute; and how many neighbours share
//! each one's secrets.

use serde::{Deserialize, Serialize};

use super::group_policy::GroupPolicy;
use super::parameters::{self, ParameterError};

/// The fewest honest contributors in any sum that is revealed.
pub const MIN_HONEST_CONTRIBUTORS: usize = 3;

/// The largest roster in which all are neighbours of all: up to here that costs less than a sparse
/// graph would.
pub const MAX_COMPLETE: usize = 64;

/// The largest roster.
pub const MAX_MEMBERS: usize = 4096;

/// The attempts at one round that a member takes part in: each draws the neighbours anew.
pub const MAX_ATTEMPTS: u32 = 8;

/// What a plan assumes of the members of a large roster, as shares of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Assumptions {
    /// The share that may collude with the aggregator.
    pub colluding: f64,
    /// The share that may drop out of a round.
    pub dropping: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            colluding: 0.05,
            dropping: 0.05,
        }
    }
}

/// The numbers of secure aggregation among n members.
///
/// With c colluding members beside a malicious aggregator, two different survivor lists cannot
/// both gather floor((n + c) / 2) + 1 signatures: the two groups of signers would share more than
/// c members, one of them honest, and an honest member signs one list (Bonawitz et al. 2017,
/// section 6.2 and theorem 6.5). Up to [`MAX_COMPLETE`] members, c = floor((n - 1) / 3), all are
/// neighbours of all, and as many shares recover a secret as signatures confirm a list. Above, c
/// is the assumed share, and neighbours and threshold follow from it (Bell et al., CCS 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CohortPolicy {
    members: usize,
    colluders: usize,
    neighbours: usize,
    threshold: usize,
    minimum: usize,
    groups: GroupPolicy,
}

impl CohortPolicy {
    /// The policy for a roster of `members`, at least `minimum` of them in every sum; without it
    /// the lowest that the roster allows. The assumptions are of rosters above [`MAX_COMPLETE`].
    ///
    /// # Errors
    /// [`PolicyError`] where the roster is too small or large, `minimum` is below the floor or
    /// above the roster, or the assumptions leave no graph.
    pub fn new(
        members: usize,
        minimum: Option<usize>,
        assumptions: Assumptions,
    ) -> Result<Self, PolicyError> {
        if !(MIN_HONEST_CONTRIBUTORS..=MAX_MEMBERS).contains(&members) {
            return Err(PolicyError::Members { got: members });
        }
        let mut policy = Self {
            members,
            colluders: (members - 1) / 3,
            neighbours: members - 1,
            threshold: 0,
            minimum: 0,
            groups: GroupPolicy::ONE,
        };
        if members <= MAX_COMPLETE {
            policy.threshold = policy.confirmations();
        } else {
            let Assumptions {
                colluding,
                dropping,
            } = assumptions;
            let sparse = parameters::sparse_parameters(members, colluding, dropping)?;
            policy.colluders = parameters::share_of(members, colluding);
            policy.neighbours = sparse.neighbours;
            policy.threshold = sparse.threshold;
        }
        policy.with_minimum(minimum.unwrap_or(policy.lowest_minimum()))
    }

    /// The policy of a roster of up to [`MAX_COMPLETE`] members with the lowest minimum.
    ///
    /// # Errors
    /// As [`CohortPolicy::new`].
    pub fn lowest(members: usize) -> Result<Self, PolicyError> {
        Self::new(members, None, Assumptions::default())
    }

    /// The same policy with other numbers, which M0 may raise and never lower.
    ///
    /// # Errors
    /// [`PolicyError::Minimum`] for a minimum out of range.
    pub fn raised(self, threshold: usize, minimum: usize) -> Result<Self, PolicyError> {
        Self { threshold, ..self }.with_minimum(minimum)
    }

    /// The same policy for rounds in groups.
    pub fn in_groups(self, groups: GroupPolicy) -> Self {
        Self { groups, ..self }
    }

    fn with_minimum(self, minimum: usize) -> Result<Self, PolicyError> {
        let (floor, members) = (self.lowest_minimum(), self.members);
        if minimum < floor || minimum > members {
            return Err(PolicyError::Minimum {
                got: minimum,
                floor,
                members,
            });
        }
        Ok(Self { minimum, ..self })
    }

    /// Members in the roster: n.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The most colluding members that the protocol tolerates: c.
    pub fn colluders(&self) -> usize {
        self.colluders
    }

    /// How many others each member shares secrets and masks with: k.
    pub fn neighbours(&self) -> usize {
        self.neighbours
    }

    /// Whether all are neighbours of all.
    pub fn is_complete(&self) -> bool {
        self.neighbours + 1 == self.members
    }

    /// The groups that have a sum each: one, unless the plan is robust.
    pub fn groups(&self) -> &GroupPolicy {
        &self.groups
    }

    /// Whether neighbours or groups are drawn, so that a beacon is needed.
    pub fn needs_beacon(&self) -> bool {
        !self.is_complete() || self.groups.is_split()
    }

    /// Shares that recover a secret: t.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Signatures that confirm a survivor list: floor((n + c) / 2) + 1.
    pub fn confirmations(&self) -> usize {
        (self.members + self.colluders) / 2 + 1
    }

    /// The fewest contributors that the plan allows in a sum.
    pub fn minimum(&self) -> usize {
        self.minimum
    }

    /// The lowest minimum that the roster allows.
    pub fn lowest_minimum(&self) -> usize {
        self.colluders + MIN_HONEST_CONTRIBUTORS
    }

    /// The fewest members that a phase may close with.
    pub fn quorum(&self) -> usize {
        let quorum = self.confirmations().max(self.minimum);
        if self.is_complete() {
            quorum.max(self.threshold)
        } else {
            quorum
        }
    }

    /// How many of `holders` that are there, the dealer itself among them, must have a dealer's
    /// shares: halfway between the threshold and all of them, so that neither a dealer that leaves
    /// some out nor holders that deny theirs decide alone.
    pub fn enough_holders(&self, holders: usize) -> usize {
        self.threshold + holders.saturating_sub(self.threshold) / 2
    }
}

/// A cohort that secure aggregation cannot protect.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// Too few members, or too many.
    #[error("{got} members: a secure sum needs {MIN_HONEST_CONTRIBUTORS} to {MAX_MEMBERS}")]
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
    /// Assumptions that no graph of neighbours meets.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lists_cannot_both_be_confirmed() {
        for members in (3..=MAX_COMPLETE).chain([65, 100, 1000]) {
            let policy = CohortPolicy::lowest(members).unwrap();
            // Signers of two lists overlap in at least 2t - n members: more than collude.
            assert!(2 * policy.confirmations() - members > policy.colluders());
            assert!(policy.quorum() <= members, "{members} could never finish");
            assert!(policy.quorum() >= policy.colluders() + MIN_HONEST_CONTRIBUTORS);
            assert_eq!(policy.is_complete(), members <= MAX_COMPLETE);
        }
    }

    /// The numbers of docs/PROTOCOL.md's notation, by hand.
    #[test]
    fn the_numbers_of_a_cohort_are_those_of_the_formulas() {
        let numbers = |members| {
            let policy = CohortPolicy::lowest(members).unwrap();
            let shares = (policy.neighbours(), policy.threshold());
            let sum = (policy.colluders(), policy.confirmations());
            (policy.members(), shares, sum, policy.minimum())
        };
        assert_eq!(numbers(10), (10, (9, 7), (3, 7), 6));
        assert_eq!(numbers(64), (64, (63, 43), (21, 43), 24));
        assert_eq!(numbers(1000), (1000, (34, 18), (50, 526), 53));
    }

    #[test]
    fn a_raised_policy_has_the_numbers_given() {
        let lowest = CohortPolicy::lowest(10).unwrap();
        let raised = lowest.raised(8, 9).unwrap();
        assert_eq!((raised.threshold(), raised.minimum()), (8, 9));
        assert_eq!((raised.members(), raised.quorum()), (10, 9));
        for minimum in [5, 11] {
            assert!(matches!(
                lowest.raised(8, minimum),
                Err(PolicyError::Minimum { got, floor: 6, members: 10 }) if got == minimum
            ));
        }
    }

    #[test]
    fn impossible_cohorts_are_refused() {
        let of = |members, minimum| CohortPolicy::new(members, minimum, Assumptions::default());
        assert!(CohortPolicy::lowest(2).is_err());
        assert!(CohortPolicy::lowest(MAX_MEMBERS + 1).is_err());
        assert!(of(6, Some(3)).is_err());
        assert!(of(6, Some(4)).is_ok());
        assert!(of(6, Some(7)).is_err());
        let half = Assumptions {
            colluding: 0.5,
            dropping: 0.05,
        };
        assert!(CohortPolicy::new(100, None, half).is_err());
    }

    #[test]
    fn a_dealer_needs_more_than_the_threshold_where_holders_are_many() {
        let policy = CohortPolicy::lowest(10).unwrap();
        assert_eq!((policy.threshold(), policy.enough_holders(10)), (7, 8));
        assert_eq!(policy.enough_holders(7), 7);
        assert_eq!(policy.enough_holders(3), 7);
    }
}
