//! The privacy boundary: the one file in which what was learned from private records becomes
//! something that may leave. Steps 3 and 4 of the round.
//!
//! What comes out is a digest of the base model, the first adapter (which follows from the
//! plan), and [`EncodedUpdate`]s, which the masker consumes. Deltas, losses and example counts
//! stay within [`LocalUpdate`].

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use fedlora_adapter::{Adapter, AdapterError, Delta, DeltaError};
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::fixed::{
    Contribution, EncodedUpdate, FixedError, LossShift, RoundEncoding, WeightClass,
};
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::{LearningRateSchedule, OptimizerState, RunPlan};
use fedlora_protocol::round::member::{RoundTask, RunOutcome};
use rand::CryptoRng;

use fedlora_model::{ActivationCheckpointing, Example, WeightsError};
use fedlora_train::{
    Batches, ClipNorm, Decay, DoesNotFit, Engine, LearningRate, MaxTokens, Progress, Proximal,
    RateRatio, Span, TrainError, TrainOption, TrainOptions, Warmup, WeightDecay, Workload,
    free_memory,
};

use crate::examples::MemberExamples;
use crate::local_training::{KeptStates, RoundTraining};
use crate::own::{Own, Start, Trained};
use crate::vote::Scores;

/// The most validation examples that a member tells its loss on in a round, or training examples
/// where it has none: the loss is told in coarse steps.
const MOST_SCORED: usize = 32;
/// The fewest, where it has as many.
const FEWEST_SCORED: usize = 8;

/// How many of `examples` tell the loss in a round of this plan: half as many as are trained on, so
/// that scoring costs a sixth of training.
fn scored<'a>(plan: &RunPlan, examples: &'a [Example]) -> &'a [Example] {
    let half = usize::try_from(plan.examples_a_round() / 2).unwrap_or(MOST_SCORED);
    &examples[..examples.len().min(half.clamp(FEWEST_SCORED, MOST_SCORED))]
}

/// What a member trains: a model, on private examples.
#[derive(Debug)]
pub struct LocalWork {
    engine: Engine,
    examples: MemberExamples,
    seed: u64,
    states: KeptStates,
    /// Where the steps of the told losses lie, the same for a run.
    loss_shift: LossShift,
    scores: Scores,
    own: Arc<Own>,
    checkpointing: ActivationCheckpointing,
    ignore_memory: bool,
}

/// A round's outcome at this member. Private: only its encoding leaves.
pub struct LocalUpdate {
    delta: Delta,
    contribution: Contribution,
    report: LocalReport,
}

/// The figures of its own round that a member sees. They do not leave its machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalReport {
    /// Mean training loss, in nats a token.
    pub train_loss: f64,
    /// The global adapter's loss on some of this member's validation examples before training.
    pub validation_loss: Option<f64>,
    /// The delta's L2 norm before clipping.
    pub delta_norm: f64,
    /// Whether the delta was scaled down to the plan's clipping norm.
    pub clipped: bool,
    /// Whether this member votes to take the newest step back: the global adapter is worse for it
    /// than the one before.
    pub worse: bool,
    /// Tokens of the round's batches, prompts included.
    pub tokens: usize,
}

impl LocalUpdate {
    /// The outcome of a training that [`LocalWork`] has not done. `delta` is clipped already.
    pub fn new(delta: Delta, contribution: Contribution, report: LocalReport) -> Self {
        Self {
            delta,
            contribution,
            report,
        }
    }
}

impl LocalWork {
    /// Combines a model with private examples. `seed` decides the order of examples and the
    /// dropout; it is this member's own.
    pub fn new(engine: Engine, examples: MemberExamples, seed: u64) -> Self {
        Self {
            engine,
            examples,
            seed,
            states: KeptStates::default(),
            loss_shift: LossShift::random(&mut os_rng()),
            scores: Scores::default(),
            own: Arc::default(),
            checkpointing: ActivationCheckpointing::Off,
            ignore_memory: false,
        }
    }

    /// Sets activation checkpointing, and whether a plan is accepted that takes more memory than
    /// the device has.
    pub fn with_memory(self, checkpointing: ActivationCheckpointing, ignore: bool) -> Self {
        Self {
            checkpointing,
            ignore_memory: ignore,
            ..self
        }
    }

    /// Sets what this member keeps to itself: for a simulation, whose members have another work for
    /// each stage of a run.
    pub fn with_own(self, own: Arc<Own>) -> Self {
        Self { own, ..self }
    }

    /// Sets where the steps of the told losses lie: for a simulation that repeats with its seed.
    pub fn with_loss_shift(self, loss_shift: LossShift) -> Self {
        Self { loss_shift, ..self }
    }

    /// Whether a plan's training fits into the device's memory, where that is known.
    ///
    /// # Errors
    /// [`UpdateError::DoesNotFit`], with what would.
    pub fn fits(&self, plan: &RunPlan) -> Result<(), UpdateError> {
        within(&self.examples.training, plan.training.max_tokens as usize)?;
        let (device, kind) = self.engine.place();
        let Ok(Some(free)) = free_memory(&device) else {
            return Ok(());
        };
        if self.ignore_memory {
            return Ok(());
        }
        let training = &plan.training;
        let max_tokens = training.max_tokens as usize;
        let workload = Workload::of(&plan.trained_lora(), device, kind)
            .with_examples(
                &self.examples.training,
                training.batch_size as usize,
                max_tokens,
            )
            .with_held_out(&self.examples.validation, self.engine.max_tokens())
            .with_held_out(&self.examples.held_out, self.engine.max_tokens());
        let plan = self.engine.plan(workload, None, self.checkpointing);
        // The weights are in place already.
        Ok(plan.check(free + plan.weights())?)
    }

    /// Examples that the plan cuts.
    pub fn cut(&self, plan: &RunPlan) -> usize {
        let most = plan.training.max_tokens as usize;
        let long = |example: &&Example| example.tokens().len() > most;
        self.examples.training.iter().filter(long).count()
    }

    /// The digest of the base model's configuration and weights.
    ///
    /// # Errors
    /// [`UpdateError::Base`] where the checkpoint's files have changed or vanished.
    pub fn base_digest(&self) -> Result<Digest, UpdateError> {
        Ok(self.engine.base_digest()?)
    }

    /// The run's first adapter, on this member's base model.
    ///
    /// # Errors
    /// A plan that does not fit the model.
    pub fn first_adapter(&self, plan: &RunPlan) -> Result<Adapter, UpdateError> {
        let lora = &plan.adapter.lora;
        let adapter = self.engine.init_adapter(lora, plan.seed())?;
        // A base can be too small for a core of this rank.
        let part = plan.adapter.factors.factors_in(RoundNumber(1));
        adapter
            .layout()
            .subset(part)
            .map_err(AdapterError::Layout)?;
        Ok(adapter)
    }

    /// Evaluates, trains, and clips the delta.
    ///
    /// # Errors
    /// [`UpdateError::Stopped`] where `keep_going` said so; otherwise what made it impossible.
    pub fn update(
        &self,
        plan: &RunPlan,
        task: &RoundTask,
        keep_going: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LocalUpdate, UpdateError> {
        let start = self.own.start(plan, task)?;
        let held = start.whole()?;
        let validation_loss = self.validation_loss(plan, &held)?;
        // Whether a member has validation examples shows nowhere: one without tells its loss on
        // some that it trains on.
        let training = &self.examples.training;
        let told_loss = match validation_loss {
            Some(loss) => loss,
            None => {
                let some = scored(plan, training);
                self.engine.evaluate(Some(&held), some)?.loss
            }
        };
        let worse = (self.scores).is_worse(&plan.rollback, task.round, told_loss);
        let round = RoundTraining {
            engine: &self.engine,
            examples: training,
            adapter: &start.adapter,
            beside: start.beside.as_ref(),
            factors: plan.adapter.factors.trained_in(task.round),
            options: &self.options(plan, task.round)?,
            steps: plan.training.steps_with(training.len()) as usize,
        };
        let mut progress = |progress| {
            if keep_going(progress) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let trained = match plan.training.optimizer_state {
            OptimizerState::Kept => self.states.train(round, &mut progress)?,
            OptimizerState::Fresh => KeptStates::default().train(round, &mut progress)?,
        };
        if trained.stopped {
            return Err(UpdateError::Stopped);
        }
        let mut delta = trained.adapter.difference(&start.sent, &task.part)?;
        let clip = f64::from(task.clip);
        let delta_norm = delta.clip(clip)?;
        let kept = Trained {
            round: task.round,
            adapter: &trained.adapter,
            weights: &trained.weights,
            delta: &delta,
        };
        self.own.keep(plan, kept);
        let steps = |loss| self.loss_shift.steps(loss);
        Ok(LocalUpdate {
            delta,
            contribution: Contribution {
                train_loss: steps(trained.mean_loss)?,
                eval_loss: steps(told_loss)?,
                clipped: delta_norm > clip,
                worse,
            },
            report: LocalReport {
                train_loss: trained.mean_loss,
                validation_loss,
                delta_norm,
                clipped: delta_norm > clip,
                worse,
                tokens: trained.tokens,
            },
        })
    }

    /// The run is over: what a member keeps to itself goes on from there at home.
    ///
    /// # Errors
    /// Adapters of another shape than before.
    pub fn ended(&self, outcome: &RunOutcome) -> Result<(), UpdateError> {
        Ok(self
            .own
            .end(&outcome.plan, &outcome.newest, &outcome.since)?)
    }

    /// What this member's training at home begins with: the global adapter, with what the member keeps
    /// to itself.
    ///
    /// # Errors
    /// An adapter of another shape than the one before.
    pub(crate) fn start_at_home(
        &self,
        plan: &RunPlan,
        global: &Adapter,
    ) -> Result<Start, UpdateError> {
        Ok(self.own.start_at(plan, global)?)
    }

    /// The weight class of this member's number of training examples.
    pub fn weight_class(&self) -> WeightClass {
        WeightClass::of_examples(self.examples.own()).unwrap_or_default()
    }

    /// The loss of an adapter on the first of this member's validation examples, if it has any.
    fn validation_loss(
        &self,
        plan: &RunPlan,
        adapter: &Adapter,
    ) -> Result<Option<f64>, UpdateError> {
        let validation = &self.examples.validation;
        if validation.is_empty() {
            return Ok(None);
        }
        let some = scored(plan, validation);
        Ok(Some(self.engine.evaluate(Some(adapter), some)?.loss))
    }

    /// The model.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The private examples.
    pub fn examples(&self) -> &MemberExamples {
        &self.examples
    }

    /// The plan's training parameters for training that belongs to no round, at this peak rate and
    /// without the proximal term, which keeps the members of a round together.
    ///
    /// # Errors
    /// As [`options`](Self::options).
    pub fn options_at(&self, plan: &RunPlan, rate: f64) -> Result<TrainOptions, TrainError> {
        Ok(TrainOptions {
            learning_rate: LearningRate::new(rate)?,
            proximal: Proximal::default(),
            ..self.options(plan, RoundNumber(1))?
        })
    }

    /// The plan's training parameters for one round: the schedule spans all rounds.
    ///
    /// # Errors
    /// [`TrainError::Options`] for a parameter out of range.
    pub fn options(&self, plan: &RunPlan, round: RoundNumber) -> Result<TrainOptions, TrainError> {
        let training = &plan.training;
        let steps = training.steps_with(self.examples.training.len()) as usize;
        let mut order = DigestWriter::new("fedlora 2 local training order");
        // Where the state is kept, one order goes on over all rounds.
        let part = match training.optimizer_state {
            OptimizerState::Kept => 0,
            OptimizerState::Fresh => round.0,
        };
        let order = order.number(self.seed).number(part.into()).finish();
        Ok(TrainOptions {
            batches: Batches::Continuous {
                batch_size: TrainOption::BatchSize.count(training.batch_size as usize)?,
                shuffle: true,
                steps: TrainOption::Steps.count(steps)?,
            },
            accumulation: TrainOption::Accumulation.count(training.accumulation as usize)?,
            max_tokens: MaxTokens::new(training.max_tokens as usize)?,
            learning_rate: LearningRate::new(plan.round_learning_rate())?,
            rate_ratio: RateRatio::default(),
            decay: match training.schedule {
                LearningRateSchedule::Cosine => Decay::Cosine,
                LearningRateSchedule::Linear => Decay::Linear,
                LearningRateSchedule::Constant => Decay::Constant,
            },
            // As large a part of the member's own steps as of the plan's.
            warmup: Warmup::Steps(
                training.warmup_steps as usize * steps / training.steps.max(1) as usize,
            ),
            span: Some(Span {
                first: steps * (round.0.saturating_sub(1)) as usize,
                total: TrainOption::ScheduleSteps.count(steps * plan.rounds as usize)?,
            }),
            weight_decay: WeightDecay::new(training.weight_decay)?,
            clip_norm: Some(ClipNorm::new(training.clip_norm)?),
            proximal: Proximal::new(training.proximal)?,
            seed: u64::from_le_bytes(order.as_bytes()[..8].try_into().expect("eight of 32 bytes")),
            checkpointing: self.checkpointing,
        })
    }
}

impl LocalUpdate {
    /// What this member is shown.
    pub fn report(&self) -> LocalReport {
        self.report
    }

    /// The clipped change of the adapter, of the factors that the round trains. It is private: what
    /// leaves the machine is [`encode`](Self::encode)d and masked.
    pub fn delta(&self) -> &Delta {
        &self.delta
    }

    /// The update as ring integers, rounded with fresh randomness.
    ///
    /// # Errors
    /// A delta that could overflow; clipping rules that out.
    pub fn encode(
        &self,
        encoding: &RoundEncoding,
        rng: &mut impl CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        encoding.encode(self.delta.values(), self.contribution, rng)
    }
}

impl fmt::Debug for LocalUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalUpdate({} values)", self.delta.len())
    }
}

/// Whether an example keeps a target token where all are cut at `max_tokens`.
fn within(examples: &[Example], max_tokens: usize) -> Result<(), UpdateError> {
    // The first token of an example is predicted from nothing, so that it is no target.
    let first = |example: &Example| {
        let mut targets = example.loss_mask().iter().skip(1);
        targets.position(|target| *target).map(|place| place + 2)
    };
    match examples.iter().filter_map(first).min() {
        Some(first) if first > max_tokens => Err(UpdateError::NothingWithin {
            examples: examples.len(),
            max_tokens,
            first,
        }),
        _ => Ok(()),
    }
}

/// Why a round's local training gave no update.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The base model's weights cannot be read.
    #[error(transparent)]
    Base(#[from] WeightsError),
    /// An option out of range, or a training that failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The adapter does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The delta is not finite, or has another layout.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// A loss that is negative or not a number.
    #[error(transparent)]
    Fixed(#[from] FixedError),
    /// Nothing is left of any example at the plan's cut.
    #[error(
        "none of the {examples} training examples has a response within the plan's max_tokens, \
         {max_tokens}: the shortest begins at token {first}; shorten the prompts, or ask the \
         operator for a plan with a larger max_tokens"
    )]
    NothingWithin {
        /// How many examples there are.
        examples: usize,
        /// Tokens at which the plan cuts.
        max_tokens: usize,
        /// Where the earliest target token stands, from 1.
        first: usize,
    },
    /// The plan's training takes more memory than the device has.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The round ended before the training did.
    #[error("training was stopped: the round is over")]
    Stopped,
    /// A bug, or a device that failed.
    #[error("training ended unexpectedly; the reason stands above")]
    Panicked,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_whose_records_nothing_is_left_is_told_so() {
        let example = |prompt: usize| {
            let mask = (0..prompt + 2).map(|place| place >= prompt).collect();
            Example::new(vec![1; prompt + 2], mask)
        };
        let examples = [example(90), example(64), example(200)];
        let refused = within(&examples, 64).unwrap_err();
        let UpdateError::NothingWithin { first, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(first, 65);
        assert!(
            refused
                .to_string()
                .contains("none of the 3 training examples"),
            "{refused}"
        );
        assert!(within(&examples, 65).is_ok());
        assert!(
            within(&[], 64).is_ok(),
            "that is said where the records are read"
        );
    }
}
