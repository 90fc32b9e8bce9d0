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
    /// Always the cores, square matrices between A and a fixed basis of B's columns: exact, and rank
    /// times rank values a projection, whatever the model's size (as Fed-SB, arXiv 2502.15436).
    Core,
    /// A alone travels, exact. Each member trains both and keeps its B to itself (FedSA-LoRA, arXiv
    /// 2410.01463), so that the run's adapter is the beginning of one.
    ShareA,
}

impl FactorSchedule {
    /// The factors that `round` (counted from 1) sums.
    pub const fn factors_in(self, round: RoundNumber) -> Factors {
        match self {
            FactorSchedule::Alternating if round.0.is_multiple_of(2) => Factors::A,
            FactorSchedule::ShareA => Factors::A,
            FactorSchedule::Alternating | FactorSchedule::FreezeA => Factors::B,
            FactorSchedule::Both => Factors::Both,
            FactorSchedule::Core => Factors::Core,
        }
    }

    /// The factors that a member trains in `round`.
    pub const fn trained_in(self, round: RoundNumber) -> Factors {
        match self {
            FactorSchedule::ShareA => Factors::Both,
            other => other.factors_in(round),
        }
    }

    /// Whether each member keeps a B of its own.
    pub const fn shares_a(self) -> bool {
        matches!(self, FactorSchedule::ShareA)
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
        let both_of = |round| {
            let schedule = FactorSchedule::ShareA;
            (schedule.factors_in(round), schedule.trained_in(round))
        };
        assert_eq!(both_of(RoundNumber(1)), (Factors::A, Factors::Both));
        assert_eq!(
            FactorSchedule::FreezeA.trained_in(RoundNumber(1)),
            Factors::B
        );
        assert_eq!(
            FactorSchedule::Core.trained_in(RoundNumber(2)),
            Factors::Core
        );
        let text = serde_json::to_string(&FactorSchedule::FreezeA).unwrap();
        assert_eq!(text, "\"freeze-a\"");
    }
}
