//! What an operator is told of a plan before it is carried out.

use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::secagg::CohortPolicy;

/// The notes, if any. A plan that is impossible has none: it is refused elsewhere.
pub(super) fn of(plan: &RunPlan) -> Vec<String> {
    let Ok(policy) = plan.policy() else {
        return Vec::new();
    };
    [no_dropout(&policy), groups(&policy)]
        .into_iter()
        .flatten()
        .collect()
}

/// The warning about a plan whose rounds need every member.
fn no_dropout(policy: &CohortPolicy) -> Option<String> {
    let (members, quorum) = (policy.members(), policy.quorum());
    if quorum < members {
        return None;
    }
    Some(format!(
        "warning: no member may drop out of a round: {members} members, up to {} of them may \
         collude, threshold {}, quorum {quorum}, dropouts tolerated 0; a sum hides each member \
         among {} honest ones at the least",
        policy.colluders(),
        policy.threshold(),
        quorum - policy.colluders(),
    ))
}

/// What a plan with groups withstands, and what it costs the members in privacy.
fn groups(policy: &CohortPolicy) -> Option<String> {
    let groups = policy.groups();
    if !groups.is_split() {
        return None;
    }
    Some(format!(
        "note: each round splits {} members into {} groups with a sum each. Up to {} malicious \
         members do not steer the step. Where {} collude, they see the update of one member with a \
         probability of {} a draw at most: members take part whose floors.exposure allows it",
        policy.members(),
        groups.count(),
        groups.withstands(),
        policy.colluders(),
        groups.exposure(policy),
    ))
}

#[cfg(test)]
mod tests {
    use fedlora_protocol::secagg::Assumptions;

    use super::*;

    #[test]
    fn a_plan_with_groups_is_shown_with_its_figures() {
        let plan = |robust: &str| {
            RunPlan::from_toml(&format!(
                "rounds = 1\nmembers = 9\n[adapter]\n\
                 lora = {{ rank = 1, alpha = 1.0, targets = [\"q\"] }}\n\
                 [aggregation]\ndropping = 0.0\n{robust}\n"
            ))
        };
        let note = |robust| groups(&plan(robust).unwrap().policy().unwrap());
        assert_eq!(note(""), None);
        let note = note("robust = { rule = \"median\", groups = 3 }").unwrap();
        for figures in [
            "9 members into 3 groups",
            "Up to 1 malicious",
            "Where 2 collude",
            "probability of 0.25 a draw",
        ] {
            assert!(note.contains(figures), "{note}");
        }
    }

    #[test]
    fn a_plan_that_tolerates_no_dropout_is_warned_about_with_its_figures() {
        let warning = |members| no_dropout(&CohortPolicy::lowest(members).unwrap());
        for (members, figures) in [
            (
                3,
                "3 members, up to 0 of them may collude, threshold 2, quorum 3",
            ),
            (
                4,
                "4 members, up to 1 of them may collude, threshold 3, quorum 4",
            ),
        ] {
            let warning = warning(members).unwrap();
            assert!(warning.contains(figures), "{warning}");
            assert!(warning.contains("dropouts tolerated 0"), "{warning}");
            assert!(warning.contains("among 3 honest"), "{warning}");
        }
        assert_eq!(warning(5), None);
        let strict = CohortPolicy::new(6, Some(6), Assumptions::default()).unwrap();
        assert!(no_dropout(&strict).is_some());
    }
}
