//! Which adapter is a run's result, and when a run has stopped improving. Members and aggregator
//! compute both from the signed results alone, by the same operations in f64, all of which are
//! exact to the last bit under IEEE 754.

use crate::fixed::LOSS_STEP;
use crate::ids::{MemberIndex, RoundNumber};

use super::stopping::StoppingPlan;

/// The most that rounding adds to a member's loss, as a standard deviation in nats: half a step.
const ROUNDING: f64 = LOSS_STEP / 2.0;
/// By how much the losses of two members may differ, as a standard deviation in nats.
const SPREAD: f64 = 1.0;

/// The pooled validation losses of a run's adapters, as far as results tell them.
///
/// The result of round r tells the loss of the adapter that the round began with, which is that of
/// round r - 1; adapter 0 is the first one. Two such losses are over na and nb survivors, k of whom
/// are in one of the two rounds alone. They can be told apart where they differ by more than the
/// standard error of their difference,
///
/// ```text
/// sqrt((h^2 (na + nb) + s^2 k) / (na nb)),   h = 0.1, s = 1
/// ```
///
/// h for the rounding of each survivor's loss, s for the spread among members. Such losses choose
/// as in the one-standard-error rule of Breiman et al., "Classification and Regression Trees", 1984,
/// section 3.4.3: of the adapters that cannot be told from the best, the latest, which saw the most
/// training.
#[derive(Debug, Clone)]
pub struct LossCurve {
    patience: Option<u32>,
    /// The newest round with a result; 0 before the first.
    newest: RoundNumber,
    /// The newest round whose result tells a loss.
    told: RoundNumber,
    /// The round with the lowest loss.
    lowest: Option<ToldLoss>,
    /// The latest round whose loss cannot be told from the lowest.
    best: Option<RoundNumber>,
    /// The round that improved last on one that had done so before.
    improved: Option<ToldLoss>,
    /// Rounds with a loss since then.
    without: u32,
    /// Results that do not count for the patience: one that takes a step back, and the next one, which
    /// tells the loss of what it went back to.
    excused: u8,
}

/// The loss that a result tells.
#[derive(Debug, Clone)]
struct ToldLoss {
    /// In nats a token; finite.
    loss: f64,
    /// Ascending, and at least one.
    survivors: Vec<MemberIndex>,
}

impl LossCurve {
    /// The curve before the first round.
    pub fn new(plan: &StoppingPlan) -> Self {
        Self {
            patience: plan.patience,
            newest: RoundNumber(0),
            told: RoundNumber(0),
            lowest: None,
            best: None,
            improved: None,
            without: 0,
            excused: 0,
        }
    }

    /// Moves on by the result of `round`: the loss that it tells in nats a token, and over whom. A
    /// loss that is not finite counts as none. Whether the result takes the step before back.
    pub fn advance(
        &mut self,
        round: RoundNumber,
        (survivors, loss): (&[MemberIndex], Option<f32>),
        taken_back: bool,
    ) {
        self.newest = round;
        if taken_back {
            self.excused = 2;
        }
        let excused = self.excused > 0;
        self.excused = self.excused.saturating_sub(1);
        let finite = loss.map(f64::from).filter(|loss| loss.is_finite());
        let Some(loss) = finite.filter(|_| !survivors.is_empty()) else {
            return;
        };
        let told = ToldLoss {
            loss,
            survivors: survivors.to_vec(),
        };
        self.told = round;
        match &self.lowest {
            Some(lowest) if lowest.is_below(&told) => {}
            Some(lowest) if lowest.loss < told.loss => self.best = Some(round),
            _ => {
                self.best = Some(round);
                self.lowest = Some(told.clone());
            }
        }
        match &self.improved {
            Some(improved) if !told.is_below(improved) => self.without += u32::from(!excused),
            _ => {
                self.improved = Some(told);
                self.without = 0;
            }
        }
    }

    /// The latest adapter among those whose loss cannot be told from the lowest, as the round that
    /// it came of; 0 for the first adapter. `None` before a loss is told. Once a later one is the
    /// best, no earlier one is so again.
    pub fn best_told(&self) -> Option<RoundNumber> {
        self.best.map(|round| RoundNumber(round.0 - 1))
    }

    /// The run's result, if it ended now, as the round that its adapter came of; 0 for the first
    /// adapter. It is the newest adapter, whose loss no result tells, unless the last loss told is
    /// above the lowest: then it is [`best_told`](Self::best_told).
    pub fn best(&self) -> RoundNumber {
        match self.best_told() {
            Some(best) if self.best != Some(self.told) => best,
            _ => self.newest,
        }
    }

    /// Whether the plan's patience is at its end: no further round opens.
    pub fn has_stopped(&self) -> bool {
        self.patience
            .is_some_and(|patience| self.without >= patience)
    }
}

impl ToldLoss {
    /// Whether this loss is lower than `other`, and can be told apart from it.
    fn is_below(&self, other: &Self) -> bool {
        other.loss - self.loss > self.standard_error(other)
    }

    /// The standard error of the difference, in nats.
    fn standard_error(&self, other: &Self) -> f64 {
        let alone = |one: &Self, other: &Self| {
            let in_other = |member: &&MemberIndex| other.survivors.binary_search(member).is_ok();
            one.survivors
                .iter()
                .filter(|member| !in_other(member))
                .count()
        };
        let differing = (alone(self, other) + alone(other, self)) as f64;
        let (mine, theirs) = (self.survivors.len() as f64, other.survivors.len() as f64);
        let variance = ROUNDING * ROUNDING * (mine + theirs) + SPREAD * SPREAD * differing;
        (variance / (mine * theirs)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everybody() -> Vec<MemberIndex> {
        (0..5).map(MemberIndex).collect()
    }

    /// The curve after results that tell these losses over the same five members, whose standard
    /// error is 0.063 nat.
    fn curve(patience: Option<u32>, losses: &[Option<f32>]) -> LossCurve {
        let mut curve = LossCurve::new(&StoppingPlan { patience });
        for (round, loss) in (1..).zip(losses) {
            curve.advance(RoundNumber(round), (&everybody(), *loss), false);
        }
        curve
    }

    fn best(losses: &[f32]) -> u32 {
        let losses: Vec<_> = losses.iter().copied().map(Some).collect();
        curve(None, &losses).best().0
    }

    #[test]
    fn the_newest_adapter_is_the_result_unless_losses_rose() {
        assert_eq!(best(&[]), 0);
        assert_eq!(best(&[3.0]), 1);
        assert_eq!(best(&[3.0, 2.5, 2.1, 2.0]), 4);
        // Adapter 2 has a loss of 2.1, adapter 3 of 2.4.
        assert_eq!(best(&[3.0, 2.5, 2.1, 2.4]), 2);
        // Training only harmed: the first adapter.
        assert_eq!(best(&[2.0, 2.5, 3.0]), 0);
    }

    #[test]
    fn of_losses_that_cannot_be_told_apart_the_later_wins() {
        // By 0.06 they can not.
        assert_eq!(best(&[3.0, 2.0, 2.06, 2.5]), 2);
        assert_eq!(best(&[3.0, 2.0, 2.06]), 3);
        // By 0.07 they can.
        assert_eq!(best(&[3.0, 2.0, 2.07, 2.5]), 1);
        assert_eq!(best(&[3.0, 2.0, 2.07]), 1);
        // All are compared with the lowest, so a slow rise shows in the end.
        assert_eq!(best(&[2.0, 2.04, 2.08, 2.12, 2.16]), 1);
        assert_eq!(best(&[2.0, 2.0, 2.0]), 3);
    }

    #[test]
    fn a_new_lowest_loss_begins_anew() {
        assert_eq!(best(&[2.0, 2.5, 1.5, 1.56, 1.9]), 3);
        assert_eq!(best(&[2.0, 2.5, 1.5]), 3);
    }

    #[test]
    fn rounds_without_a_loss_are_passed_over() {
        assert_eq!(curve(None, &[None; 4]).best(), RoundNumber(4));
        assert_eq!(curve(None, &[None; 4]).best_told(), None);
        let told = curve(None, &[Some(2.0), None, Some(2.5), None]);
        assert_eq!(told.best(), RoundNumber(0));
        let told = curve(None, &[Some(2.0), None, Some(1.5), None]);
        assert_eq!((told.best().0, told.best_told()), (4, Some(RoundNumber(2))));
        // What no honest aggregator signs.
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let told = curve(Some(1), &[Some(2.0), Some(strange), Some(1.5)]);
            assert_eq!(told.best(), RoundNumber(3), "{strange}");
            assert!(!told.has_stopped());
        }
        let mut empty = LossCurve::new(&StoppingPlan::default());
        empty.advance(RoundNumber(1), (&[], Some(1.0)), false);
        assert_eq!(empty.best_told(), None);
    }

    /// The members that drop out may be those with high losses.
    #[test]
    fn losses_over_other_members_must_differ_by_more() {
        let second = |loss, survivors: &[u16]| {
            let mut curve = curve(None, &[Some(2.0)]);
            let survivors: Vec<_> = survivors.iter().copied().map(MemberIndex).collect();
            curve.advance(RoundNumber(2), (&survivors, Some(loss)), false);
            curve.best().0
        };
        assert_eq!(second(2.1, &[0, 1, 2, 3, 4]), 0);
        // One more member: sqrt((0.01 * 11 + 1) / 30) = 0.19.
        assert_eq!(second(2.18, &[0, 1, 2, 3, 4, 5]), 2);
        assert_eq!(second(2.2, &[0, 1, 2, 3, 4, 5]), 0);
        // Another member: sqrt((0.01 * 10 + 2) / 25) = 0.29.
        assert_eq!(second(2.28, &[0, 1, 2, 3, 9]), 2);
        assert_eq!(second(2.3, &[0, 1, 2, 3, 9]), 0);
    }

    /// A step that harms is told of once, and what it is taken back to once more.
    #[test]
    fn a_step_that_is_taken_back_costs_no_patience() {
        let mut curve = curve(Some(1), &[Some(2.0)]);
        let mut told = |round, loss, back| {
            curve.advance(RoundNumber(round), (&everybody(), Some(loss)), back);
            curve.has_stopped()
        };
        assert!(!told(2, 3.0, true));
        assert!(!told(3, 2.05, false));
        assert!(told(4, 2.0, false));
    }

    #[test]
    fn patience_counts_rounds_without_an_improvement() {
        let stops = |patience, losses: &[f32]| {
            let losses: Vec<_> = losses.iter().copied().map(Some).collect();
            curve(patience, &losses).has_stopped()
        };
        assert!(!stops(Some(2), &[2.0, 2.0]));
        assert!(stops(Some(2), &[2.0, 2.0, 2.0]));
        assert!(stops(Some(2), &[2.0, 2.5, 1.97]));
        assert!(!stops(Some(2), &[2.0, 2.5, 1.9]));
        assert!(stops(Some(1), &[2.0, 2.1]));
        assert!(!stops(None, &[2.0; 40]));
        // Small steps add up.
        assert!(!stops(Some(2), &[2.0, 1.95, 1.9, 1.85, 1.8]));
        // Rounds without a loss do not count.
        let told = [Some(2.0), None, None, Some(2.0)];
        assert!(!curve(Some(2), &told).has_stopped());
    }
}
