//! What a member insists on, whatever the aggregator's plan says.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::run_plan::RunPlan;
use crate::crypto::agreement::Suite;
use crate::remedy::Remedy;
use crate::secagg::MAX_COMPLETE;

/// A member's own floors and ceilings. The protocol's floors (threshold, three honest
/// contributors) hold beside these and cannot be lowered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Floors {
    /// The smallest roster.
    pub members: usize,
    /// The fewest contributors in any sum.
    pub contributors: usize,
    /// The most rounds in one run: each sum reveals something.
    pub rounds: u32,
    /// The most optimizer steps a round that this member will compute.
    pub steps: u32,
    /// The largest adapter rank.
    pub rank: usize,
    /// The largest clip norm of a delta that a run may come to.
    pub clip: f32,
    /// The largest step of the global adapter, in multiples of a round's clip. With `clip` it
    /// bounds what one round's result can change, whoever made it up.
    pub server_step: f32,
    /// The fewest examples that this member trains on in a round: an update of one example is that
    /// example.
    pub examples: u64,
    /// The smallest share of members that the plan must assume to collude with the aggregator, on
    /// rosters above 64.
    pub colluding: f64,
    /// The greatest probability, in one draw of a robust plan's groups, that so many of a group
    /// collude that they see the update of one honest member in it. 0 refuses nearly all such
    /// plans.
    pub exposure: f64,
    /// The weakest suite of algorithms: `hybrid`, or `classical` to allow both.
    pub suite: Suite,
    /// Whether a run may begin from an adapter that this member has not held in an earlier run, such as the
    /// result of one before it joined. The aggregator could have made it up.
    pub unknown_start: bool,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            members: 3,
            contributors: 3,
            rounds: 1000,
            steps: 1_000_000,
            rank: 256,
            clip: 100.0,
            server_step: 10.0,
            examples: 16,
            colluding: 0.05,
            exposure: 0.0,
            suite: Suite::Hybrid,
            unknown_start: false,
        }
    }
}

impl Floors {
    /// Checks that a plan meets every floor and ceiling.
    ///
    /// # Errors
    /// [`FloorBreach`] with the first value that does not.
    pub fn admit(&self, plan: &RunPlan) -> Result<(), FloorBreach> {
        // In groups each has a sum of its own.
        let (minimum, exposure) = plan.policy().map_or((0, 1.0), |policy| {
            let groups = policy.groups();
            let minimum = match groups.is_split() {
                true => groups.minimum(),
                false => policy.quorum(),
            };
            (minimum, groups.exposure(&policy))
        });
        // A roster on which all share with all tolerates a third.
        let colluding = if plan.members > MAX_COMPLETE {
            plan.aggregation.colluding
        } else {
            f64::INFINITY
        };
        let at_least = [
            ("members", plan.members as f64, self.members as f64),
            ("contributors", minimum as f64, self.contributors as f64),
            (
                "examples",
                plan.fewest_examples_a_round() as f64,
                self.examples as f64,
            ),
            ("colluding", colluding, self.colluding),
        ];
        let at_most = [
            ("rounds", f64::from(plan.rounds), f64::from(self.rounds)),
            (
                "steps",
                f64::from(plan.training.steps),
                f64::from(self.steps),
            ),
            ("rank", plan.trained_lora().rank() as f64, self.rank as f64),
            (
                "clip",
                f64::from(plan.aggregation.max_clip()),
                f64::from(self.clip),
            ),
            (
                "server_step",
                f64::from(plan.largest_step()),
                f64::from(self.server_step),
            ),
            ("exposure", exposure, self.exposure),
        ];
        if plan.aggregation.suite < self.suite {
            return Err(FloorBreach {
                floor: "suite",
                got: FloorValue::Suite(plan.aggregation.suite),
                own: FloorValue::Suite(self.suite),
            });
        }
        let low = at_least.into_iter().find(|(_, got, floor)| got < floor);
        let high = at_most.into_iter().find(|(_, got, ceiling)| got > ceiling);
        match low.or(high) {
            Some((floor, got, own)) => Err(FloorBreach {
                floor,
                got: FloorValue::Number(got),
                own: FloorValue::Number(own),
            }),
            None => Ok(()),
        }
    }
}

/// A plan that does not meet one of the member's floors.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the plan's {floor} is {got}, and this member's floors.{floor} is {own}")]
pub struct FloorBreach {
    /// The field of [`Floors`], such as `rank`.
    pub floor: &'static str,
    /// The value in the plan.
    pub got: FloorValue,
    /// The member's own floor or ceiling.
    pub own: FloorValue,
}

impl FloorBreach {
    /// The floor to relax.
    pub fn remedy(&self) -> Remedy {
        Remedy::RelaxFloor {
            floor: self.floor,
            plan: self.got,
            own: self.own,
        }
    }
}

/// The value of a floor, or what a plan has for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FloorValue {
    /// A number.
    Number(f64),
    /// A suite of algorithms.
    Suite(Suite),
}

impl fmt::Display for FloorValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Suite(suite) => write!(f, "{suite}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_floor_is_enforced() {
        let plan = RunPlan::from_toml(
            r#"
            rounds = 2
            members = 5
            [adapter]
            lora = { rank = 4, alpha = 8.0, dropout = 0.0, targets = ["q"] }
            "#,
        )
        .unwrap();
        let base = Floors::default();
        base.admit(&plan).unwrap();
        let cases = [
            (
                "members",
                Floors {
                    members: 6,
                    ..base.clone()
                },
            ),
            (
                "contributors",
                Floors {
                    contributors: 5,
                    ..base.clone()
                },
            ),
            (
                "rounds",
                Floors {
                    rounds: 1,
                    ..base.clone()
                },
            ),
            (
                "steps",
                Floors {
                    steps: 49,
                    ..base.clone()
                },
            ),
            (
                "rank",
                Floors {
                    rank: 3,
                    ..base.clone()
                },
            ),
            (
                "clip",
                Floors {
                    clip: 79.0,
                    ..base.clone()
                },
            ),
            (
                "server_step",
                Floors {
                    server_step: 0.99,
                    ..base.clone()
                },
            ),
            (
                "examples",
                Floors {
                    examples: 401,
                    ..base.clone()
                },
            ),
        ];
        for (name, floors) in cases {
            let breach = floors.admit(&plan).unwrap_err();
            assert_eq!(breach.floor, name);
            let Remedy::RelaxFloor { floor, plan, own } = breach.remedy();
            assert_eq!((floor, plan, own), (name, breach.got, breach.own));
        }
    }

    /// The default admits momentum of 0.9 at a rate of 1, whose steps are of ten clips at most.
    #[test]
    fn a_plan_whose_steps_the_clip_does_not_bound_is_refused() {
        let admit = |rate: f32, server: &str| {
            let plan = RunPlan::from_toml(&format!(
                "rounds = 2\nmembers = 5\n[adapter]\n\
                 lora = {{ rank = 4, alpha = 8.0, targets = [\"q\"] }}\n\
                 [aggregation]\nserver_learning_rate = {rate:?}\n[server]\n{server}\n"
            ));
            Floors::default().admit(&plan.unwrap())
        };
        for (rate, server) in [
            (10.0, ""),
            (1.0, "optimizer = \"fedavgm\""),
            (1.0, "optimizer = \"nesterov\""),
            // Its steps are scaled down to the clip.
            (1000.0, "optimizer = \"fedadam\""),
        ] {
            admit(rate, server).unwrap();
        }
        for (rate, server, got) in [
            (1000.0, "", 1000.0),
            (1.1, "optimizer = \"nesterov\"", 11.0),
            (1.0, "optimizer = \"fedavgm\"\nmomentum = 0.99", 100.0),
            (0.1, "max_step = 10.5", 10.5),
            (0.01, "optimizer = \"fedyogi\"\nmax_step = 1e6", 1e6),
        ] {
            let breach = admit(rate, server).unwrap_err();
            assert_eq!(breach.floor, "server_step", "{server}");
            assert_eq!(breach.own, FloorValue::Number(10.0));
            assert_eq!(breach.got, FloorValue::Number(got), "{server}");
        }
    }

    /// Of nine members in groups of three, two collude: in one group with probability 1/4.
    #[test]
    fn groups_are_for_members_that_bear_the_exposure() {
        let plan = RunPlan::from_toml(
            r#"
            rounds = 2
            members = 9
            [adapter]
            lora = { rank = 4, alpha = 8.0, dropout = 0.0, targets = ["q"] }
            [aggregation]
            dropping = 0.0
            robust = { rule = "median", groups = 3 }
            "#,
        )
        .unwrap();
        let floors = |exposure, contributors| Floors {
            exposure,
            contributors,
            ..Floors::default()
        };
        let refused = |floors: Floors| floors.admit(&plan).unwrap_err().floor;
        assert_eq!(refused(Floors::default()), "exposure");
        assert_eq!(refused(floors(0.24, 3)), "exposure");
        assert_eq!(floors(0.25, 3).admit(&plan), Ok(()));
        // The quorum is 6, a group's sum is of 3.
        assert_eq!(refused(floors(0.25, 4)), "contributors");
    }
}
