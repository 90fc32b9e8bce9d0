//! The plan's section on when a run ends before its last round.

use serde::{Deserialize, Serialize};

use super::run_plan::PlanError;
use crate::fixed::MIN_SURVIVORS_FOR_LOSSES;

/// When a run ends before its last round. By default it does not.
// What counts as an improvement is said at `LossCurve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoppingPlan {
    /// Rounds in a row without an improvement of the pooled validation loss after which the run
    /// ends: from 1 to two fewer than `rounds`; without it no round is left out. Only rounds with a
    /// published loss count, so the plan must be for five members or more.
    pub patience: Option<u32>,
}

impl StoppingPlan {
    /// Refuses a patience that could never end a run of `rounds` rounds among `members`.
    pub(super) fn check(&self, rounds: u32, members: usize) -> Result<(), PlanError> {
        let Some(patience) = self.patience else {
            return Ok(());
        };
        let refuse = |expected| Err(PlanError::range("stopping.patience", patience, expected));
        if members < MIN_SURVIVORS_FOR_LOSSES {
            return refuse("no patience with fewer than five members: no loss is published");
        }
        // The first loss has nothing to improve on, and after the last round nothing is left.
        if patience == 0 || patience > rounds.saturating_sub(2) {
            return refuse("a number from 1 to two fewer than rounds");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patience_that_cannot_end_a_run_is_refused() {
        let check = |patience, rounds, members| {
            let patience = Some(patience);
            StoppingPlan { patience }.check(rounds, members)
        };
        for (patience, rounds, members) in [
            (0, 10, 5),
            (9, 10, 5),
            (u32::MAX, 10, 5),
            (1, 2, 5),
            (1, 1, 5),
            (3, 10, 4),
        ] {
            let error = check(patience, rounds, members).unwrap_err();
            assert!(
                error.to_string().starts_with("stopping.patience"),
                "{error}"
            );
        }
        check(8, 10, 5).unwrap();
        check(1, 3, 5).unwrap();
        StoppingPlan::default().check(1, 3).unwrap();
    }
}
