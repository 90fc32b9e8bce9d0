//! The plan's section for rounds that withstand malicious updates.

use serde::{Deserialize, Serialize};

use super::run_plan::PlanError;
use crate::fixed::RobustRule;
use crate::secagg::{CohortPolicy, GroupPolicy};

/// Absent by default: all members are in one sum. Otherwise each round's members are split into
/// groups with a sum of their own, and the groups' means are combined by a rule that a few spoilt
/// ones cannot steer. It costs privacy: a member is hidden among its group alone. Only for rosters
/// of up to 64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustPlan {
    /// How the groups' means are combined, coordinate by coordinate. Groups count alike, whatever
    /// their members weigh.
    pub rule: RobustRuleName,
    /// How many groups there are, drawn anew for each round; with the median at least 3, with the
    /// trimmed mean 2 `trim` + 1. The median withstands fewer than half of them spoilt.
    pub groups: u16,
    /// Values left out at either end of each coordinate, so as many spoilt groups are withstood.
    /// Only with `trimmed-mean`; without it 1.
    #[serde(default)]
    pub trim: Option<usize>,
    /// The fewest members in a group's sum, 3 or more. A group that falls below it is left out.
    #[serde(default = "lowest")]
    pub minimum: usize,
}

/// The fewest members of a group where the plan does not say.
fn lowest() -> usize {
    3
}

/// The rules by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RobustRuleName {
    /// The median over the groups.
    Median,
    /// The mean over the groups without the smallest and the largest ones.
    TrimmedMean,
}

impl RobustPlan {
    /// The rule with its number.
    ///
    /// # Errors
    /// [`PlanError::Range`] for a `trim` that does not go with the rule, or is 0.
    pub fn rule(&self) -> Result<RobustRule, PlanError> {
        let refused =
            |got: usize, expected| PlanError::range("aggregation.robust.trim", got, expected);
        match (self.rule, self.trim) {
            (RobustRuleName::Median, None) => Ok(RobustRule::Median),
            (RobustRuleName::Median, Some(got)) => {
                Err(refused(got, "no value with the rule median"))
            }
            (RobustRuleName::TrimmedMean, Some(0)) => Err(refused(0, "1 or more")),
            (RobustRuleName::TrimmedMean, trim) => Ok(RobustRule::TrimmedMean {
                trim: trim.unwrap_or(1),
            }),
        }
    }

    /// The groups that follow from it, where any `dropping` members of `policy` may drop out.
    ///
    /// # Errors
    /// As [`RobustPlan::rule`], and [`PlanError::Robust`] for groups that would be too small or too
    /// few.
    pub fn groups(&self, policy: &CohortPolicy, dropping: usize) -> Result<GroupPolicy, PlanError> {
        GroupPolicy::new(policy, self.rule()?, self.groups, self.minimum, dropping)
            .map_err(PlanError::Robust)
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunPlan;
    use super::*;

    fn plan(members: usize, aggregation: &str) -> Result<RunPlan, PlanError> {
        RunPlan::from_toml(&format!(
            "rounds = 2\nmembers = {members}\n[adapter]\n\
             lora = {{ rank = 4, alpha = 8.0, targets = [\"q\"] }}\n\
             [aggregation]\n{aggregation}\n"
        ))
    }

    #[test]
    fn a_robust_plan_gives_groups() {
        let plan = plan(
            12,
            "robust = { rule = \"trimmed-mean\", groups = 4, trim = 1 }\ndropping = 0.0",
        );
        let policy = plan.unwrap().policy().unwrap();
        assert!(policy.is_complete() && policy.needs_beacon());
        let groups = policy.groups();
        assert_eq!(
            (groups.count(), groups.minimum(), groups.needed()),
            (4, 3, 3)
        );
        assert_eq!(groups.rule(), Some(RobustRule::TrimmedMean { trim: 1 }));
    }

    #[test]
    fn without_it_all_are_in_one_sum() {
        let policy = plan(12, "").unwrap().policy().unwrap();
        assert!(!policy.needs_beacon() && !policy.groups().is_split());
        assert_eq!(policy.groups().rule(), None);
    }

    #[test]
    fn what_goes_with_no_rule_or_roster_is_refused_by_its_key() {
        let median = "rule = \"median\", groups = 3";
        for (members, robust, more, named) in [
            (
                12,
                format!("{median}, trim = 1"),
                "",
                "aggregation.robust.trim",
            ),
            (12, median.replace("median", "krum"), "", "krum"),
            (12, format!("{median}, cohorts = 3"), "", "cohorts"),
            (
                12,
                "rule = \"trimmed-mean\", groups = 3, trim = 0".to_owned(),
                "",
                "aggregation.robust.trim",
            ),
            (12, format!("{median}, minimum = 2"), "", "minimum = 2"),
            (8, median.to_owned(), "dropping = 0.0", "8 members make 2"),
            (9, median.to_owned(), "", "aggregation.dropping"),
            (12, median.to_owned(), "dropping = 0.34", "drop out"),
            (65, median.to_owned(), "", "up to 64"),
        ] {
            let refused = plan(members, &format!("robust = {{ {robust} }}\n{more}"));
            let words = refused.unwrap_err().to_string();
            assert!(words.contains(named), "{named}: {words}");
        }
    }
}
