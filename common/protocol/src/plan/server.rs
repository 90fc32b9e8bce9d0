//! The plan's section on the server's optimizer: the rule that turns each round's mean into the
//! step of the global adapter, and how long a step may be.

use serde::{Deserialize, Serialize};

use super::run_plan::PlanError;

/// How each round's mean becomes a step of the global adapter. The rate of every optimizer is
/// `aggregation.server_learning_rate`. Moments are kept for each value of the adapter; those of a
/// factor advance in the rounds that train it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerPlan {
    /// The optimizer.
    pub optimizer: ServerOptimizerName,
    /// How much of the moment before each round keeps, 0 or more and below 1: the momentum of
    /// `fedavgm` and `nesterov`, beta1 of `fedadam` and `fedyogi`. Without it 0.9; not with
    /// `fedavg`.
    pub momentum: Option<f64>,
    /// How much of the second moment before each round keeps, 0 or more and below 1. Only with
    /// `fedadam` and `fedyogi`; without it 0.99.
    pub beta2: Option<f64>,
    /// What is added to the root of the second moment, above 0 and at most 1: small values adapt
    /// more. Only with `fedadam` and `fedyogi`; without it 0.001.
    pub tau: Option<f64>,
    /// The largest L2 norm of a step, in multiples of the round's clip; longer ones are scaled down
    /// to it. Without it what honest means cannot exceed under a clip that stays: the rate with
    /// `fedavg`, rate / (1 - momentum) with `fedavgm` and `nesterov`. With `fedadam` and `fedyogi`,
    /// whose steps the clip does not bound, 1.
    pub max_step: Option<f32>,
}

/// The optimizers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerOptimizerName {
    /// The step is the mean, times the rate.
    #[default]
    Fedavg,
    /// Momentum over the rounds.
    Fedavgm,
    /// Nesterov's momentum over the rounds, as in DiLoCo.
    Nesterov,
    /// Adam over the rounds: each value has a rate of its own. A rate of 0.001 to 0.1 is usual.
    Fedadam,
    /// Yogi over the rounds: like `fedadam`, but the second moment falls slowly.
    Fedyogi,
}

/// Defaults of `momentum`, `beta2` and `tau`.
const MOMENTUM: f64 = 0.9;
const BETA2: f64 = 0.99;
const TAU: f64 = 1e-3;

/// A rule with its numbers. Its formulas are at the aggregator's `optimizer`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ServerRule {
    /// The mean itself.
    Mean,
    /// A sum of all means, the older the less.
    Momentum {
        /// What is kept of the sum before, 0 or more and below 1.
        momentum: f64,
        /// Whether the step looks ahead by one round.
        nesterov: bool,
    },
    /// The first moment over the root of the second, value by value.
    Adaptive {
        /// What is kept of the first moment before, 0 or more and below 1.
        beta1: f64,
        /// What is kept of the second moment before, 0 or more and below 1.
        beta2: f64,
        /// What is added to the root, above 0 and at most 1.
        tau: f64,
        /// How the second moment advances.
        second: SecondMoment,
    },
}

/// How the second moment of an adaptive rule advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondMoment {
    /// An exponential mean of squares.
    Adam,
    /// Towards the square, by a share of the square.
    Yogi,
}

/// What an aggregator needs of a plan to make steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerSettings {
    /// The rule.
    pub rule: ServerRule,
    /// What the rule's direction is multiplied by.
    pub rate: f32,
    /// The largest L2 norm of a step, in multiples of the round's clip.
    pub largest_step: f32,
}

impl ServerPlan {
    /// The rule with its numbers.
    ///
    /// # Errors
    /// [`PlanError::Range`] for a number outside its range, or one that the optimizer does not use.
    pub fn rule(&self) -> Result<ServerRule, PlanError> {
        use ServerOptimizerName::{Fedadam, Fedavg, Fedavgm, Fedyogi, Nesterov};
        let adaptive = matches!(self.optimizer, Fedadam | Fedyogi);
        if self.optimizer == Fedavg {
            unused("server.momentum", self.momentum)?;
        }
        if !adaptive {
            unused("server.beta2", self.beta2)?;
            unused("server.tau", self.tau)?;
        }
        let share = "a number, 0 or more and below 1";
        let momentum = self.momentum();
        let beta2 = self.beta2.unwrap_or(BETA2);
        let tau = self.tau.unwrap_or(TAU);
        ranged("server.momentum", momentum, share, |x| {
            (0.0..1.0).contains(&x)
        })?;
        ranged("server.beta2", beta2, share, |x| (0.0..1.0).contains(&x))?;
        let expected = "a number above 0, 1 at most";
        ranged("server.tau", tau, expected, |x| x > 0.0 && x <= 1.0)?;
        Ok(match self.optimizer {
            Fedavg => ServerRule::Mean,
            Fedavgm | Nesterov => ServerRule::Momentum {
                momentum,
                nesterov: self.optimizer == Nesterov,
            },
            Fedadam | Fedyogi => ServerRule::Adaptive {
                beta1: momentum,
                beta2,
                tau,
                second: match self.optimizer {
                    Fedyogi => SecondMoment::Yogi,
                    _ => SecondMoment::Adam,
                },
            },
        })
    }

    /// The settings at this rate.
    ///
    /// # Errors
    /// As [`ServerPlan::rule`], and [`PlanError::Range`] for a largest step that is not finite or
    /// not above 0.
    pub fn settings(&self, rate: f32) -> Result<ServerSettings, PlanError> {
        let rule = self.rule()?;
        let largest_step = self.largest_step(rate);
        let expected = "a finite number above 0";
        ranged("server.max_step", largest_step.into(), expected, |x| {
            x.is_finite() && x > 0.0
        })?;
        Ok(ServerSettings {
            rule,
            rate,
            largest_step,
        })
    }

    /// The largest L2 norm of a step at this rate, in multiples of the round's clip.
    pub fn largest_step(&self, rate: f32) -> f32 {
        use ServerOptimizerName::{Fedadam, Fedavg, Fedavgm, Fedyogi, Nesterov};
        match (self.max_step, self.optimizer) {
            (Some(most), _) => most,
            (None, Fedavg) => rate,
            (None, Fedavgm | Nesterov) => (f64::from(rate) / (1.0 - self.momentum())) as f32,
            (None, Fedadam | Fedyogi) => 1.0,
        }
    }

    fn momentum(&self) -> f64 {
        self.momentum.unwrap_or(MOMENTUM)
    }
}

fn unused(key: &'static str, value: Option<f64>) -> Result<(), PlanError> {
    match value {
        None => Ok(()),
        Some(got) => Err(PlanError::range(
            key,
            got,
            "no value with this server.optimizer",
        )),
    }
}

fn ranged(
    key: &'static str,
    got: f64,
    expected: &'static str,
    within: impl Fn(f64) -> bool,
) -> Result<(), PlanError> {
    if within(got) {
        return Ok(());
    }
    Err(PlanError::range(key, got, expected))
}

#[cfg(test)]
mod tests {
    use super::super::RunPlan;
    use super::*;

    fn plan(rate: &str, server: &str) -> Result<RunPlan, PlanError> {
        RunPlan::from_toml(&format!(
            "rounds = 2\nmembers = 5\n[adapter]\n\
             lora = {{ rank = 4, alpha = 8.0, targets = [\"q\"] }}\n\
             [aggregation]\nserver_learning_rate = {rate}\n[server]\n{server}\n"
        ))
    }

    fn settings(rate: &str, server: &str) -> ServerSettings {
        plan(rate, server).unwrap().server_settings().unwrap()
    }

    #[test]
    fn without_a_word_it_is_federated_averaging() {
        let plain = settings("0.5", "");
        assert_eq!(plain.rule, ServerRule::Mean);
        assert_eq!((plain.rate, plain.largest_step), (0.5, 0.5));
    }

    #[test]
    fn defaults_are_those_of_the_papers() {
        let nesterov = settings("1.0", "optimizer = \"nesterov\"");
        let momentum = 0.9;
        assert_eq!(
            nesterov.rule,
            ServerRule::Momentum {
                momentum,
                nesterov: true
            }
        );
        // Not 10.000000000000002, which a floor of 10 would refuse.
        assert_eq!(nesterov.largest_step, 10.0);
        let yogi = settings("0.01", "optimizer = \"fedyogi\"\nbeta2 = 0.5");
        assert_eq!(
            yogi.rule,
            ServerRule::Adaptive {
                beta1: 0.9,
                beta2: 0.5,
                tau: 1e-3,
                second: SecondMoment::Yogi
            }
        );
        assert_eq!(yogi.largest_step, 1.0);
    }

    #[test]
    fn the_plan_may_name_its_largest_step() {
        let momentum = settings("0.7", "optimizer = \"fedavgm\"\nmax_step = 2.5");
        assert_eq!(momentum.largest_step, 2.5);
        let half = settings("0.7", "optimizer = \"fedavgm\"\nmomentum = 0.5");
        assert_eq!(half.largest_step, 1.4);
    }

    #[test]
    fn what_is_out_of_range_or_of_another_optimizer_is_refused_by_its_key() {
        for (server, named) in [
            ("momentum = 0.9", "server.momentum = 0.9: expected no value"),
            ("beta2 = 0.9", "server.beta2"),
            ("optimizer = \"nesterov\"\nbeta2 = 0.9", "server.beta2"),
            ("optimizer = \"fedavgm\"\ntau = 0.1", "server.tau"),
            ("optimizer = \"fedavgm\"\nmomentum = 1.0", "server.momentum"),
            ("optimizer = \"fedavgm\"\nmomentum = nan", "server.momentum"),
            (
                "optimizer = \"fedadam\"\nmomentum = -0.1",
                "server.momentum",
            ),
            ("optimizer = \"fedadam\"\nbeta2 = 1.0", "server.beta2"),
            ("optimizer = \"fedyogi\"\ntau = 0.0", "server.tau"),
            ("optimizer = \"fedyogi\"\ntau = 1.5", "server.tau"),
            ("max_step = 0.0", "server.max_step"),
            ("max_step = inf", "server.max_step"),
            ("optimizer = \"adam\"", "adam"),
            ("beta1 = 0.9", "beta1"),
        ] {
            let words = plan("1.0", server).unwrap_err().to_string();
            assert!(words.contains(named), "{server}: {words}");
        }
    }
}
