//! A training that its caller takes step by step, whatever backend computes it.

use std::ops::ControlFlow;

use fedlora_adapter::{Adapter, Layout};

use crate::step::error::TrainError;
use crate::step::order::Position;
use crate::step::report::{Progress, TrainReport, Trained};

/// A training that takes one optimizer step at a time. A training that resumes from a saved
/// [`TrainerState`] ends with the same bits as one that was never interrupted.
pub struct Trainer<'a>(pub(crate) Box<dyn StepBackend + 'a>);

/// All that a training's next steps depend on, beside adapter, examples and options. Dropout needs
/// nothing here: each step draws its masks from the seed and the step's number.
#[derive(Clone, PartialEq)]
pub struct TrainerState {
    /// Optimizer steps done.
    pub step: usize,
    /// The position in the order of examples.
    pub position: Position,
    /// The parameters: the trained factors' values in the order of [`Trainer::part`], cores on a scale
    /// of their own; then the weights of a frozen adapter beside them, likewise.
    pub values: Vec<f32>,
    /// AdamW's first moments, as many as `values`.
    pub first: Vec<f32>,
    /// AdamW's second moments, as many as `values`.
    pub second: Vec<f32>,
}

impl std::fmt::Debug for TrainerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainerState")
            .field("step", &self.step)
            .field("position", &self.position)
            .field("values", &self.values.len())
            .finish()
    }
}

impl Trainer<'_> {
    /// Takes one optimizer step.
    ///
    /// # Errors
    /// [`TrainError::Diverged`], after which the trainer is useless; [`TrainError::State`] after
    /// the last step of a training by epochs.
    pub fn step(&mut self) -> Result<Progress, TrainError> {
        self.0.step()
    }

    /// Optimizer steps done.
    pub fn done(&self) -> usize {
        self.0.done()
    }

    /// Optimizer steps of the whole training.
    pub fn steps(&self) -> usize {
        self.0.steps()
    }

    /// The layout of the trained factors: names and shapes, in the order of their values.
    pub fn part(&self) -> &Layout {
        self.0.part()
    }

    /// The adapter after the steps done.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] where a value is not finite.
    pub fn adapter(&self) -> Result<Adapter, TrainError> {
        self.0.adapter_with(&self.0.values())
    }

    /// The adapter with other values of the trained factors, in the order of
    /// [`part`](Self::part).
    ///
    /// # Errors
    /// [`TrainError::State`] for another number of values, [`TrainError::Diverged`] where one
    /// is not finite.
    pub fn adapter_with(&self, values: &[f32]) -> Result<Adapter, TrainError> {
        self.0.adapter_with(values)
    }

    /// The values of the trained factors, in the order of [`part`](Self::part).
    pub fn values(&self) -> Vec<f32> {
        self.0.values()
    }

    /// The weights of the frozen adapter beside the trained one, in the layout's order; none without
    /// one.
    pub fn weights(&self) -> Vec<f32> {
        self.0.weights()
    }

    /// What to save in order to resume later.
    pub fn state(&self) -> TrainerState {
        self.0.state()
    }

    /// Resumes from a saved state.
    ///
    /// # Errors
    /// [`TrainError::State`] where this training cannot be in such a state. Nothing has changed
    /// then.
    pub fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.0.restore(state)
    }
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trainer(step {} of {})", self.done(), self.steps())
    }
}

/// What a [`Trainer`] needs of a backend; see its methods.
pub(crate) trait StepBackend {
    fn step(&mut self) -> Result<Progress, TrainError>;
    fn done(&self) -> usize;
    fn steps(&self) -> usize;
    fn part(&self) -> &Layout;
    fn adapter_with(&self, values: &[f32]) -> Result<Adapter, TrainError>;
    fn values(&self) -> Vec<f32>;
    fn weights(&self) -> Vec<f32>;
    fn state(&self) -> TrainerState;
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError>;
}

/// Takes all steps of `trainer`, or as many as `progress` wants.
pub(crate) fn train(
    trainer: &mut Trainer<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    let mut report = TrainReport {
        steps: 0,
        mean_loss: 0.0,
        losses: Vec::with_capacity(trainer.steps()),
        tokens: 0,
        stopped: false,
    };
    let mut loss_total = 0.0;
    while trainer.done() < trainer.steps() {
        let done = trainer.step()?;
        loss_total += done.loss * done.target_tokens as f64;
        report.tokens += done.target_tokens;
        report.steps += 1;
        report.losses.push(done.loss);
        if progress(done).is_break() {
            report.stopped = true;
            break;
        }
    }
    report.mean_loss = loss_total / (report.tokens as f64).max(1.0);
    let adapter = trainer.adapter()?;
    Ok(Trained { adapter, report })
}
