//! Which of a run's adapters is its result, and what this member holds of it. M6 and the run's end.

use fedlora_adapter::{Adapter, Factors};
use fedlora_common::digest::Digest;

use crate::ids::RoundNumber;
use crate::plan::{LossCurve, StoppingPlan};
use crate::round::participant::AllowedStep;
use crate::wire::messages::RoundResult;

/// The run's result, by the results so far.
pub(super) struct RunResult {
    losses: LossCurve,
    /// The newest round with a result; 0 before the first.
    last: RoundNumber,
    /// The digest of that round's adapter; before the first round of the first adapter.
    newest: Digest,
    best: BestAdapter,
}

/// The adapter that is the result where the newest is not.
pub(super) struct BestAdapter {
    /// The round that it came of; 0 for the first adapter.
    round: RoundNumber,
    pub(super) digest: Digest,
    /// `None` where this member missed it.
    pub(super) adapter: Option<Adapter>,
    /// How far the results since then may have led away from it.
    pub(super) allowed: AllowedStep,
}

impl RunResult {
    /// The result of a run before its first round.
    pub(super) fn new(plan: &StoppingPlan, first: &Adapter) -> Self {
        let digest = first.digest();
        Self {
            losses: LossCurve::new(plan),
            last: RoundNumber(0),
            newest: digest,
            best: BestAdapter {
                round: RoundNumber(0),
                digest,
                adapter: Some(first.clone()),
                allowed: AllowedStep::default(),
            },
        }
    }

    /// Takes a checked result, which tells the loss of the adapter before it: `before`, where this
    /// member holds that one. The result's step is in `factors`, and at most `norm` long; or it takes
    /// the step before back.
    pub(super) fn advance(
        &mut self,
        result: &RoundResult,
        before: Option<&Adapter>,
        (factors, norm): (Factors, f64),
        taken_back: bool,
    ) {
        let told = (&result.survivors[..], result.eval_loss);
        self.losses.advance(result.round, told, taken_back);
        if self.losses.best_told() == Some(self.last) && self.best.round != self.last {
            self.best = BestAdapter {
                round: self.last,
                digest: self.newest,
                adapter: before.cloned(),
                allowed: AllowedStep::default(),
            };
        }
        self.best.allowed.add(factors, norm);
        self.last = result.round;
        self.newest = result.adapter;
    }

    /// The round whose adapter is the result; 0 for the first adapter.
    pub(super) fn round(&self) -> RoundNumber {
        self.losses.best()
    }

    /// The adapter that is the result; `None` where it is the newest.
    pub(super) fn not_newest(&self) -> Option<&BestAdapter> {
        (self.round() != self.last).then_some(&self.best)
    }

    /// Whether the plan's patience is at its end.
    pub(super) fn has_stopped(&self) -> bool {
        self.losses.has_stopped()
    }
}
