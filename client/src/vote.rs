//! Whether a member votes to take the newest step back: by its own losses of the adapters before and
//! after it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::RollbackPlan;

/// A member's losses of the adapters that the newest rounds start from. They stay in its memory.
#[derive(Default)]
pub(crate) struct Scores(Mutex<BTreeMap<RoundNumber, f64>>);

impl Scores {
    /// Takes the loss of the adapter that `round` starts from. Whether it is worse than the one
    /// before by more than the plan's margin; not, where this member missed the round before.
    pub(crate) fn is_worse(&self, plan: &RollbackPlan, round: RoundNumber, loss: f64) -> bool {
        let mut scores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let former = RoundNumber(round.0.saturating_sub(1));
        // A round that is tried again needs the one before once more.
        scores.retain(|kept, _| *kept >= former);
        scores.insert(round, loss);
        match scores.get(&former) {
            Some(before) => plan.is_worse(loss, *before),
            None => false,
        }
    }
}

impl fmt::Debug for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scores(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_votes_by_the_round_before_alone() {
        let plan = RollbackPlan::default();
        let scores = Scores::default();
        let worse = |round, loss| scores.is_worse(&plan, RoundNumber(round), loss);
        assert!(!worse(1, 3.0));
        assert!(!worse(2, 3.05));
        assert!(worse(3, 3.2));
        // The same round again, after a restart of its attempt.
        assert!(worse(3, 3.2));
        // Better than round 3, though worse than round 2.
        assert!(!worse(4, 3.18));
        // Round 5 was missed.
        assert!(!worse(6, 9.0));
        assert!(worse(7, 9.2));
        assert_eq!(format!("{scores:?}"), "Scores(..)");
    }
}
