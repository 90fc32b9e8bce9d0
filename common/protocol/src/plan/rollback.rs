//! The plan's section on when members' votes take a step back.

use serde::{Deserialize, Serialize};

use super::run_plan::PlanError;
use crate::ids::RoundNumber;

/// When a step is taken back that most members find harmful. Each member scores each new global
/// adapter on its own validation records before it trains on it, and votes in the masked sum where
/// it is worse than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollbackPlan {
    /// By how much a member's loss must rise for a vote, in nats a token: 0 or more.
    pub margin: f64,
    /// The share of a round's survivors above which their votes take the step before back: from 0.5
    /// to 1. With 1 none is. Votes count only where losses are published: with five survivors or
    /// more.
    pub votes: f64,
}

impl Default for RollbackPlan {
    fn default() -> Self {
        Self {
            margin: 0.1,
            votes: 0.5,
        }
    }
}

impl RollbackPlan {
    /// The part of a step that is taken back. Not all of it: members reveal shares on an adapter
    /// once, so that the run cannot stand on the former one again.
    pub const PART: f64 = 15.0 / 16.0;

    /// Whether the result of `round` takes the step of the round before back, in place of a step of
    /// its own: so many of its survivors vote for that. Round 1 has none before it.
    pub fn takes_back(&self, round: RoundNumber, survivors: usize, votes: Option<u16>) -> bool {
        let votes = votes.unwrap_or(0);
        round.0 > 1 && f64::from(votes) > self.votes * survivors as f64
    }

    /// Whether a member votes: its loss of the new adapter and of the one before.
    pub fn is_worse(&self, loss: f64, before: f64) -> bool {
        loss > before + self.margin
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        let Self { margin, votes } = *self;
        if !(margin.is_finite() && margin >= 0.0) {
            let expected = "a finite number, 0 or more";
            return Err(PlanError::range("rollback.margin", margin, expected));
        }
        if !(0.5..=1.0).contains(&votes) {
            let expected = "a number from 0.5 to 1";
            return Err(PlanError::range("rollback.votes", votes, expected));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_share_must_vote() {
        let plan = RollbackPlan::default();
        let second = RoundNumber(2);
        assert!(!plan.takes_back(second, 6, None));
        assert!(!plan.takes_back(second, 6, Some(3)));
        assert!(plan.takes_back(second, 6, Some(4)));
        assert!(plan.takes_back(second, 7, Some(4)));
        assert!(!plan.takes_back(RoundNumber(1), 6, Some(6)));
        let never = RollbackPlan { votes: 1.0, ..plan };
        assert!(!never.takes_back(second, 6, Some(6)));
    }

    #[test]
    fn a_loss_must_rise_by_more_than_the_margin() {
        let plan = RollbackPlan {
            margin: 0.25,
            ..RollbackPlan::default()
        };
        assert!(!plan.is_worse(2.25, 2.0));
        assert!(plan.is_worse(2.26, 2.0));
        assert!(!plan.is_worse(1.0, 2.0));
    }

    #[test]
    fn shares_below_a_half_and_margins_below_none_are_refused() {
        let default = RollbackPlan::default();
        for votes in [0.49, 1.01, f64::NAN] {
            let error = RollbackPlan { votes, ..default }.check().unwrap_err();
            assert!(error.to_string().starts_with("rollback.votes"), "{error}");
        }
        for margin in [-0.1, f64::NAN, f64::INFINITY] {
            let error = RollbackPlan { margin, ..default }.check().unwrap_err();
            assert!(error.to_string().starts_with("rollback.margin"), "{error}");
        }
        default.check().unwrap();
    }
}
