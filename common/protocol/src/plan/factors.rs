//! Which LoRA factors each round of a run trains and sums.

use serde::{Deserialize, Serialize};

use crate::ids::RoundNumber;
use fedlora_adapter::Factors;

/// How a run chooses the factors of each round. A mean of `B A` is not `mean(B) mean(A)`:
/// only where one factor stays fixed within a round is the sum exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactorSchedule {
    /// B in odd rounds, A in even ones: each round exact. B comes first because it starts
    /// at zero, where A has no gradient.
    Alternating,
    /// Always B: exact, and half the bytes.
    FreezeA,
    /// Always both: classic FedAvg, biased.
    Both,
}

impl FactorSchedule {
    /// The factors that `round` (counted from 1) trains.
    pub const fn factors_in(self, round: RoundNumber) -> Factors {
        match self {
            FactorSchedule::Alternating if round.0.is_multiple_of(2) => Factors::A,
            FactorSchedule::Alternating | FactorSchedule::FreezeA => Factors::B,
            FactorSchedule::Both => Factors::Both,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternating_begins_with_b() {
        let factors = |round| FactorSchedule::Alternating.factors_in(RoundNumber(round));
        assert_eq!(
            [factors(1), factors(2), factors(3)],
            [Factors::B, Factors::A, Factors::B]
        );
        assert_eq!(
            FactorSchedule::FreezeA.factors_in(RoundNumber(2)),
            Factors::B
        );
        let text = serde_json::to_string(&FactorSchedule::FreezeA).unwrap();
        assert_eq!(text, "\"freeze-a\"");
    }
}
