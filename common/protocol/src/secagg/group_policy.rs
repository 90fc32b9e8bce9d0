//! How many groups a robust round has, how few members and groups it goes on with, and what that
//! costs in privacy.

use super::parameters::Hypergeometric;
use super::policy::{CohortPolicy, MAX_COMPLETE, MIN_HONEST_CONTRIBUTORS};
use crate::fixed::RobustRule;

/// The groups of each round of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPolicy {
    count: u16,
    minimum: usize,
    rule: Option<RobustRule>,
}

impl GroupPolicy {
    /// All members are in one sum.
    pub(super) const ONE: Self = Self {
        count: 1,
        minimum: 1,
        rule: None,
    };

    /// The policy of `count` groups for the members of `policy`, combined by `rule`, with at least
    /// `minimum` members in each group's sum, where any `dropping` members may drop out.
    ///
    /// # Errors
    /// [`GroupPolicyError`] where groups would be too small or too few, from the start or after
    /// those dropouts.
    pub fn new(
        policy: &CohortPolicy,
        rule: RobustRule,
        count: u16,
        minimum: usize,
        dropping: usize,
    ) -> Result<Self, GroupPolicyError> {
        let members = policy.members();
        if members > MAX_COMPLETE {
            return Err(GroupPolicyError::Members { got: members });
        }
        if minimum < MIN_HONEST_CONTRIBUTORS {
            return Err(GroupPolicyError::Minimum { got: minimum });
        }
        let (groups, needed) = (usize::from(count), rule.needed_groups());
        let most = members / minimum;
        if groups < needed || groups > most {
            return Err(GroupPolicyError::Count {
                got: count,
                needed,
                most,
                members,
                minimum,
            });
        }
        // Wherever they fall: a group is lost with as many dropouts as it has beyond the minimum
        // and one more, and takes all its members with it.
        let spare = members / groups - minimum + 1;
        let lost = dropping / spare;
        let gone = lost * members.div_ceil(groups) + (dropping - lost * spare);
        let kept = members.saturating_sub(gone);
        if groups - lost.min(groups) < needed || kept < policy.quorum() {
            return Err(GroupPolicyError::Dropouts {
                dropping,
                groups: count,
                left: groups.saturating_sub(lost),
                needed,
                members: kept,
                quorum: policy.quorum(),
            });
        }
        Ok(Self {
            count,
            minimum,
            rule: Some(rule),
        })
    }

    /// How many groups the members are split into.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether there is more than one sum, so that a beacon is needed.
    pub fn is_split(&self) -> bool {
        self.count > 1
    }

    /// The fewest members in a group's sum.
    pub fn minimum(&self) -> usize {
        self.minimum
    }

    /// The fewest groups with a sum.
    pub fn needed(&self) -> usize {
        self.rule.map_or(1, RobustRule::needed_groups)
    }

    /// The rule that combines the groups' means; `None` where all are in one sum.
    pub fn rule(&self) -> Option<RobustRule> {
        self.rule
    }

    /// How many members may spoil their updates, each another group, without steering the step.
    pub fn withstands(&self) -> usize {
        self.rule
            .map_or(0, |rule| rule.withstands(self.count.into()))
    }

    /// An upper bound on the probability that, in one draw of the groups, the colluding members of
    /// `policy` are so many of one group that an aggregator that chooses the dropouts is left with
    /// the sum of one honest member there. 0 where all are in one sum.
    ///
    /// The aggregator may leave out as many members as the quorum spares, and of a group as many as
    /// leave it its minimum. How many of a group collude is hypergeometric; the bound adds up the
    /// groups. It is rounded up to a ten-thousandth.
    pub fn exposure(&self, policy: &CohortPolicy) -> f64 {
        if !self.is_split() {
            return 0.0;
        }
        let (members, groups) = (policy.members(), usize::from(self.count));
        let spared = members - policy.quorum().min(members);
        let larger = members % groups;
        let of_size = |size: usize, count: usize| {
            let left = self.minimum.max(size.saturating_sub(spared));
            let colluding = Hypergeometric::new(members, policy.colluders(), size);
            count as f64 * colluding.at_least(left - 1)
        };
        let size = members / groups;
        let sum = of_size(size, groups - larger) + of_size(size + 1, larger);
        // What exceeds one by a millionth of it is rounding.
        ((sum * 1e4 - 1e-6).ceil() / 1e4).clamp(0.0, 1.0)
    }
}

/// Groups that would not hide their members, or not be enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupPolicyError {
    /// A roster over a sparse graph.
    #[error("{got} members: groups are for rosters of up to {MAX_COMPLETE}")]
    Members {
        /// The roster's size.
        got: usize,
    },
    /// A minimum that hides nobody.
    #[error(
        "minimum = {got}: a group's sum shows by itself, so it takes {MIN_HONEST_CONTRIBUTORS} or \
         more members"
    )]
    Minimum {
        /// The minimum asked for.
        got: usize,
    },
    /// Too few groups for the rule, or too many for the members.
    #[error(
        "groups = {got}: the rule takes {needed} or more, and {members} members make {most} at \
         most with {minimum} in each"
    )]
    Count {
        /// The number asked for.
        got: u16,
        /// The fewest that the rule takes.
        needed: usize,
        /// The most that the members make.
        most: usize,
        /// The roster's size.
        members: usize,
        /// The fewest members in a group's sum.
        minimum: usize,
    },
    /// Too few would be left.
    #[error(
        "groups = {groups}: where {dropping} members drop out, {left} groups with {members} \
         members may be left, and {needed} with {quorum} are needed: use another number of groups, \
         or a lower aggregation.dropping"
    )]
    Dropouts {
        /// The members assumed to drop out.
        dropping: usize,
        /// The groups asked for.
        groups: u16,
        /// Groups that are left at worst.
        left: usize,
        /// The fewest that the rule takes.
        needed: usize,
        /// Members that are left at worst.
        members: usize,
        /// The fewest members in all sums together.
        quorum: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIAN: RobustRule = RobustRule::Median;

    fn of(members: usize, groups: u16, dropping: usize) -> Result<GroupPolicy, GroupPolicyError> {
        let policy = CohortPolicy::lowest(members).unwrap();
        GroupPolicy::new(&policy, MEDIAN, groups, 3, dropping)
    }

    #[test]
    fn groups_that_are_too_small_too_few_or_too_many_are_refused() {
        assert!(of(9, 3, 0).is_ok());
        for (members, groups) in [(8, 3), (9, 2), (9, 4), (9, 0), (9, 1)] {
            let refused = of(members, groups, 0);
            assert!(matches!(refused, Err(GroupPolicyError::Count { .. })));
        }
        let policy = CohortPolicy::lowest(12).unwrap();
        let with = |rule, groups, minimum| GroupPolicy::new(&policy, rule, groups, minimum, 0);
        assert_eq!(
            with(MEDIAN, 4, 2),
            Err(GroupPolicyError::Minimum { got: 2 })
        );
        assert!(with(MEDIAN, 4, 4).is_err());
        assert!(with(MEDIAN, 3, 4).is_ok());
        let trimmed = |trim| RobustRule::TrimmedMean { trim };
        assert!(with(trimmed(1), 3, 3).is_ok());
        assert!(with(trimmed(2), 4, 3).is_err());
        let large = CohortPolicy::lowest(65).unwrap();
        assert_eq!(
            GroupPolicy::new(&large, MEDIAN, 3, 3, 0),
            Err(GroupPolicyError::Members { got: 65 })
        );
    }

    /// 9 members in groups of 3 bear no dropout, 12 in groups of 4 one. 15 in groups of 3 bear one,
    /// which costs a group; a second one in another group would leave less than the quorum.
    #[test]
    fn enough_groups_and_members_stay_wherever_dropouts_fall() {
        assert!(of(9, 3, 1).is_err());
        assert!(of(12, 3, 1).is_ok());
        assert!(of(12, 3, 2).is_err());
        assert!(of(15, 5, 1).is_ok());
        let Err(GroupPolicyError::Dropouts {
            left,
            members,
            quorum,
            ..
        }) = of(15, 5, 2)
        else {
            panic!("too few would be left");
        };
        assert_eq!((left, members, quorum), (3, 9, 10));
        assert!(of(21, 7, 2).is_ok());
        assert!(of(21, 7, 3).is_err());
    }

    /// Of 9 members 2 collude. Both are in one group of three with probability 3 * 7 / 84.
    #[test]
    fn the_exposure_is_that_of_a_draw_without_replacement() {
        let policy = CohortPolicy::lowest(9).unwrap();
        assert_eq!((policy.colluders(), policy.quorum()), (2, 6));
        let exposure = of(9, 3, 0).unwrap().exposure(&policy);
        assert_eq!(exposure, 0.25);
        assert_eq!(GroupPolicy::ONE.exposure(&policy), 0.0);

        // Counted out: 11 members in groups of 4, 4 and 3, of whom 3 collude; two are enough.
        let policy = CohortPolicy::lowest(11).unwrap();
        assert_eq!((policy.colluders(), policy.quorum()), (3, 8));
        let (mut draws, mut met) = (0, 0);
        for set in 0_u32..1 << 11 {
            if set.count_ones() == 3 {
                draws += 1;
                for group in [0b1111, 0b1111 << 4, 0b111 << 8] {
                    met += u32::from((set & group).count_ones() >= 2);
                }
            }
        }
        let exposure = of(11, 3, 0).unwrap().exposure(&policy);
        let counted = f64::from(met) / f64::from(draws);
        assert!((0.0..1e-4).contains(&(exposure - counted)), "{exposure}");
    }

    /// Of 15 members 4 collude, and all must be in the sum: a group of 5 stays whole, and shows a
    /// member where all 4 are in it, with probability 3 * 11 / 3003.
    #[test]
    fn a_quorum_of_all_leaves_no_member_out() {
        let policy = CohortPolicy::lowest(15).unwrap().raised(11, 15).unwrap();
        assert_eq!((policy.colluders(), policy.quorum()), (4, 15));
        let groups = GroupPolicy::new(&policy, MEDIAN, 3, 3, 0).unwrap();
        assert_eq!(groups.exposure(&policy), 0.011);
    }

    #[test]
    fn as_many_spoilt_groups_as_the_rule_bears_do_not_steer() {
        let policy = CohortPolicy::lowest(21).unwrap();
        let withstands = |rule| {
            let groups = GroupPolicy::new(&policy, rule, 7, 3, 0);
            groups.unwrap().withstands()
        };
        assert_eq!(withstands(MEDIAN), 3);
        assert_eq!(withstands(RobustRule::TrimmedMean { trim: 2 }), 2);
        assert_eq!(GroupPolicy::ONE.withstands(), 0);
    }

    #[test]
    fn more_members_in_each_sum_expose_fewer() {
        let policy = CohortPolicy::lowest(63).unwrap();
        assert_eq!(policy.colluders(), 20);
        let groups = |minimum| GroupPolicy::new(&policy, MEDIAN, 3, minimum, 0).unwrap();
        assert!(groups(3).exposure(&policy) > 0.9);
        let wide = groups(15).exposure(&policy);
        assert!(wide < 2e-3, "{wide}");
        assert!(groups(21).exposure(&policy) < wide);
    }
}
