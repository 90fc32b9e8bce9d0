//! The plan's section on each member's training between two rounds.

use serde::{Deserialize, Serialize};

use super::run_plan::PlanError;

/// The learning rate over the run, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearningRateSchedule {
    /// Half a cosine, from the peak to zero at the run's last step.
    #[default]
    Cosine,
    /// A straight line from the peak to zero at the run's last step.
    Linear,
    /// The peak rate from the end of the warm-up to the end of the run.
    Constant,
}

/// What becomes of a member's optimizer state at the end of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerState {
    /// It lives on in the member's memory, and is lost where the member restarts.
    #[default]
    Kept,
    /// Each round begins without.
    Fresh,
}

/// Local training, the same for every member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingPlan {
    /// Optimizer steps in each round; with `epochs` the most.
    pub steps: u32,
    /// Passes over a member's own training records in each round, 1 or more, so that members with more
    /// records take more steps; without it all take `steps`. How long a member trains, and so about
    /// how many records it has, then shows to the aggregator.
    pub epochs: Option<u32>,
    /// Examples in each forward pass.
    pub batch_size: u32,
    /// Forward passes whose gradients each optimizer step accumulates.
    pub accumulation: u32,
    /// The most tokens of an example; longer ones are truncated to this.
    pub max_tokens: u32,
    /// The peak learning rate, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// How the learning rate falls after the warm-up, over all rounds.
    pub schedule: LearningRateSchedule,
    /// Steps of linear warm-up at the start of the run.
    pub warmup_steps: u32,
    /// AdamW's decoupled weight decay, 0 or more.
    pub weight_decay: f64,
    /// The largest global L2 norm of a gradient; larger ones are scaled down to it.
    pub clip_norm: f64,
    /// FedProx's mu, from 0 to 10: a member's objective gains half of it times the squared L2
    /// distance between the trained factors and the global adapter. That gradient is a part of what
    /// `clip_norm` bounds. 0 leaves the objective as it is; 0.001 to 1 are usual.
    pub proximal: f64,
    /// Whether AdamW's moments live on from round to round. They stay at the member.
    pub optimizer_state: OptimizerState,
}

impl TrainingPlan {
    /// Optimizer steps in a round of a member with as many training examples.
    pub fn steps_with(&self, examples: usize) -> u32 {
        let Some(epochs) = self.epochs else {
            return self.steps;
        };
        let a_step = (u64::from(self.batch_size) * u64::from(self.accumulation)).max(1);
        let trained = (examples as u64).saturating_mul(epochs.into());
        u32::try_from(trained.div_ceil(a_step).max(1))
            .unwrap_or(u32::MAX)
            .min(self.steps)
    }

    pub(super) fn check(&self) -> Result<(), PlanError> {
        let at_least = |key, value: u32, least, expected| match value < least {
            true => Err(PlanError::range(key, value, expected)),
            false => Ok(()),
        };
        at_least("training.steps", self.steps, 1, "1 or more")?;
        let epochs = self.epochs.unwrap_or(1);
        at_least("training.epochs", epochs, 1, "1 or more")?;
        at_least("training.batch_size", self.batch_size, 1, "1 or more")?;
        at_least("training.accumulation", self.accumulation, 1, "1 or more")?;
        at_least("training.max_tokens", self.max_tokens, 2, "2 or more")?;
        for (key, value) in [
            ("training.learning_rate", self.learning_rate),
            ("training.clip_norm", self.clip_norm),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(PlanError::range(key, value, "a finite number above 0"));
            }
        }
        let decay = self.weight_decay;
        if !(decay.is_finite() && decay >= 0.0) {
            let expected = "a finite number, 0 or more";
            return Err(PlanError::range("training.weight_decay", decay, expected));
        }
        if !(0.0..=10.0).contains(&self.proximal) {
            let expected = "a number from 0 to 10";
            return Err(PlanError::range(
                "training.proximal",
                self.proximal,
                expected,
            ));
        }
        Ok(())
    }
}

impl Default for TrainingPlan {
    fn default() -> Self {
        Self {
            steps: 50,
            epochs: None,
            batch_size: 8,
            accumulation: 1,
            max_tokens: 256,
            learning_rate: 1e-4,
            schedule: LearningRateSchedule::Cosine,
            warmup_steps: 10,
            weight_decay: 0.01,
            clip_norm: 1.0,
            proximal: 0.0,
            optimizer_state: OptimizerState::Kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_steps_by_records_up_to_the_most() {
        let plan = |epochs| TrainingPlan {
            steps: 10,
            epochs,
            batch_size: 4,
            accumulation: 2,
            ..TrainingPlan::default()
        };
        assert_eq!(plan(None).steps_with(1), 10);
        let steps = |epochs, examples| plan(Some(epochs)).steps_with(examples);
        assert_eq!([steps(1, 0), steps(1, 8), steps(1, 9)], [1, 1, 2]);
        assert_eq!(
            [steps(3, 9), steps(3, 100), steps(u32::MAX, 9)],
            [4, 10, 10]
        );
        assert!(
            plan(Some(0))
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("training.epochs")
        );
    }
}
