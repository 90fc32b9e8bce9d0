//! The plan's section on what each member makes of the last global adapter, for itself.

use serde::{Deserialize, Serialize};

use super::run_plan::PlanError;

/// What each member does after the last round, on its own records and with nobody else: no message
/// tells of it. A member keeps the adapter that does best on its own validation records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PersonalisationPlan {
    /// How a member makes an adapter of its own.
    pub method: PersonalisationMethod,
    /// The share of a member's optimizer steps that it takes at home, after the last round: from 0
    /// to below 1.
    pub share_of_steps: f64,
    /// Peak learning rate of training at home; without it half of the rate at which a member
    /// trains alone, which is that of the rounds divided by the number of members to the power of
    /// 3/4, at most 6.
    pub learning_rate: Option<f64>,
    /// Whether a member also trains on its own records alone, as if there were no federation, and
    /// keeps that adapter where it is the best. Otherwise a member cannot tell what it gained.
    pub shadow: bool,
}

impl Default for PersonalisationPlan {
    fn default() -> Self {
        Self {
            method: PersonalisationMethod::FineTune,
            share_of_steps: 0.2,
            learning_rate: None,
            shadow: true,
        }
    }
}

/// How a member makes an adapter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PersonalisationMethod {
    /// It does not.
    None,
    /// It trains the global adapter further on its own records, and averages that with the adapters
    /// that it trained alone, or without one with the global adapter.
    FineTune,
    /// It trains an adapter of its own in all rounds and at home, beside that of the others, which
    /// follows from the global one (FedALT, arXiv:2503.11880), with a learned weight on each
    /// projection; and averages as for `fine-tune`. Both are one adapter of twice the rank. The
    /// rounds' rate is then that of a member that trains alone. For `factors = "both"` and plain FedAvg.
    RestOfWorld,
}

impl PersonalisationPlan {
    /// The most optimizer steps that a member takes at home after `federated` steps in rounds:
    /// `share / (1 - share)` times as many, rounded up.
    pub fn home_steps(&self, federated: usize) -> usize {
        let share = self.share_of_steps;
        match self.method {
            PersonalisationMethod::None => 0,
            PersonalisationMethod::FineTune | PersonalisationMethod::RestOfWorld => {
                (federated as f64 * share / (1.0 - share)).ceil() as usize
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        let refuse = |key, got: f64, expected| Err(PlanError::range(key, got, expected));
        if !(0.0..1.0).contains(&self.share_of_steps) {
            let key = "personalisation.share_of_steps";
            return refuse(key, self.share_of_steps, "a number from 0 to below 1");
        }
        match self.learning_rate {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => {
                let key = "personalisation.learning_rate";
                refuse(key, rate, "a finite number above 0")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_all_steps_is_a_quarter_of_those_in_rounds() {
        let plan = PersonalisationPlan::default();
        assert_eq!(plan.home_steps(320), 80);
        assert_eq!(plan.home_steps(1), 1);
        assert_eq!(plan.home_steps(0), 0);
        let none = PersonalisationPlan {
            method: PersonalisationMethod::None,
            ..plan
        };
        assert_eq!(none.home_steps(320), 0);
    }

    #[test]
    fn a_share_of_all_steps_or_less_than_none_is_refused() {
        let plan = |share_of_steps| PersonalisationPlan {
            share_of_steps,
            ..PersonalisationPlan::default()
        };
        for bad in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            let error = plan(bad).check().unwrap_err();
            assert!(error.to_string().contains("personalisation.share_of_steps"));
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let learning_rate = Some(bad);
            let plan = PersonalisationPlan {
                learning_rate,
                ..plan(0.1)
            };
            let error = plan.check().unwrap_err();
            assert!(error.to_string().contains("personalisation.learning_rate"));
        }
        plan(0.0).check().unwrap();
        plan(0.99).check().unwrap();
    }
}
