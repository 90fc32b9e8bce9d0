//! A whole run on this machine: steps, held-out scores, early stopping, checkpoints and figures.
//! It can be interrupted at any point. Resumed from its last checkpoint, it ends with the same
//! bits as a run that was never interrupted.

use std::time::{Instant, SystemTime};

use fedlora_adapter::{Adapter, Factors, peft};
use fedlora_model::Example;

use crate::device::choice::Device;
use crate::engine::Engine;
use crate::run::checkpoint::Checkpoint;
use crate::run::error::RunError;
use crate::run::event::Event;
use crate::run::figures::{Figures, Scored};
use crate::run::metrics::{EvaluationRecord, Metrics, StepRecord};
use crate::run::options::{Keep, RunOptions};
use crate::run::output::OutputFolder;
use crate::run::resume_point::ResumePoint;
use crate::run::spec::RunSpec;
use crate::run::summary::{RunOutcome, Summary, peak_memory};
use crate::step::error::TrainError;
use crate::step::trainer::Trainer;

/// The inputs of a run.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The base model on its device.
    pub engine: &'a Engine,
    /// Name of the base model in the adapter's configuration.
    pub base_name: &'a str,
    /// The adapter before the first step.
    pub adapter: &'a Adapter,
    /// Examples to train on.
    pub training: &'a [Example],
    /// Held-out examples; an empty list is never scored.
    pub held_out: &'a [Example],
    /// Settings of the run.
    pub options: &'a RunOptions,
    /// All that the result depends on; a run resumes only with the same spec.
    pub spec: &'a RunSpec,
}

/// Trains, resuming from the last checkpoint in `folder` if there is one, and writes the adapter.
///
/// Call [`OutputFolder::begin`] with the same spec first. `stop` is asked between steps; `watch`
/// receives each [`Event`].
///
/// # Errors
/// [`RunError`]. Checkpoints written before stay usable.
pub fn run(
    setup: &Setup<'_>,
    folder: &mut OutputFolder,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<RunOutcome, RunError> {
    let trainer = setup.engine.trainer(
        setup.adapter,
        Factors::Both,
        setup.training,
        &setup.options.train,
    )?;
    let checkpoints = folder.checkpoints();
    let found = checkpoints.newest(trainer.part())?;
    let mut session = Session {
        setup,
        trainer,
        folder,
        figures: Figures::default(),
        best: None,
        saved: None,
        saved_at: Instant::now(),
        device_memory: None,
        watch,
    };
    let steps = session.trainer.steps();
    match found {
        None => (session.watch)(Event::Begun { steps }),
        Some(found) => {
            for error in &found.damaged {
                (session.watch)(Event::Damaged(error));
            }
            session.resume(found.checkpoint)?;
            let step = session.trainer.done();
            (session.watch)(Event::Resumed { step, steps });
        }
    }
    session.go(stop)
}

struct Session<'a, 's> {
    setup: &'a Setup<'a>,
    trainer: Trainer<'a>,
    folder: &'s mut OutputFolder,
    figures: Figures,
    /// The trained factors' values at the best score.
    best: Option<Vec<f32>>,
    /// Steps done at the newest checkpoint.
    saved: Option<usize>,
    saved_at: Instant,
    /// Peak of a GPU's memory in bytes.
    device_memory: Option<u64>,
    watch: &'s mut dyn FnMut(Event<'_>),
}

impl Session<'_, '_> {
    fn resume(&mut self, checkpoint: Checkpoint) -> Result<(), RunError> {
        let differences = self.setup.spec.differences(&checkpoint.spec);
        if !differences.is_empty() {
            return Err(RunError::OtherCheckpoint { differences });
        }
        self.trainer.restore(&checkpoint.state)?;
        self.figures = checkpoint.figures;
        self.best = checkpoint.best;
        self.saved = Some(checkpoint.state.step);
        Ok(())
    }

    fn go(mut self, stop: &dyn Fn() -> bool) -> Result<RunOutcome, RunError> {
        let begun = Instant::now();
        let before = self.figures.seconds;
        let steps = self.trainer.steps();
        let from = ResumePoint {
            step: self.trainer.done(),
            scored: self.scored(),
        };
        let mut metrics = Metrics::open(
            self.folder.metrics(),
            &self.folder.tensorboard(),
            from,
            now(),
        )?;
        // An epoch that ended with the checkpoint's step is still to be scored.
        let mut pass_ended = self.figures.pass_ended;
        loop {
            let step = self.trainer.done();
            self.figures.seconds = before + begun.elapsed().as_secs_f64();
            if stop() {
                if step > 0 && self.saved != Some(step) {
                    self.save(&mut metrics)?;
                }
                return Ok(RunOutcome::Interrupted { step, steps });
            }
            if self.evaluation_due(step, pass_ended) {
                self.evaluate(&mut metrics)?;
            }
            if step >= steps {
                break;
            }
            let patience = self.setup.options.patience;
            if let Some(best) = patience.and_then(|patience| patience.exhausted(&self.figures)) {
                (self.watch)(Event::StoppedEarly { step, best });
                break;
            }
            if self.checkpoint_due(step) {
                self.save(&mut metrics)?;
            }
            let started = Instant::now();
            let done = self.trainer.step()?;
            let took = started.elapsed().as_secs_f64();
            self.device_memory = self.device_memory.max(self.setup.engine.device_memory());
            pass_ended = done.pass_ended;
            self.figures.pass_ended = pass_ended;
            self.figures.tokens += done.tokens as u64;
            self.figures.target_tokens += done.target_tokens as u64;
            self.figures.loss_sum += done.loss * done.target_tokens as f64;
            self.figures.last_loss = done.loss;
            self.figures.step_seconds += took;
            self.figures.seconds = before + begun.elapsed().as_secs_f64();
            let record = StepRecord {
                step: done.step,
                epoch: done.epochs,
                loss: done.loss,
                learning_rate: done.learning_rate,
                gradient_norm: done.gradient_norm,
                tokens: self.figures.tokens,
                target_tokens: self.figures.target_tokens,
                tokens_per_second: done.tokens as f64 / took.max(1e-9),
                seconds: self.figures.seconds,
            };
            metrics.step(&record, now())?;
            (self.watch)(Event::Step { record, steps });
        }
        metrics.sync()?;
        self.finish(begun, before)
    }

    /// Whether the last step has its held-out score.
    fn scored(&self) -> bool {
        let scored = self.figures.scored.map(|scored| scored.step);
        scored == Some(self.trainer.done())
    }

    fn evaluation_due(&self, step: usize, pass_ended: bool) -> bool {
        if self.setup.held_out.is_empty() || step == 0 || self.scored() {
            return false;
        }
        self.setup.options.evaluate_every.due(step, pass_ended) || step >= self.trainer.steps()
    }

    fn checkpoint_due(&self, step: usize) -> bool {
        if step == 0 || self.saved == Some(step) {
            return false;
        }
        let steps = step - self.saved.unwrap_or(0);
        let interval = self.setup.options.checkpoint_every;
        interval.due(steps, self.saved_at.elapsed())
    }

    fn evaluate(&mut self, metrics: &mut Metrics) -> Result<(), RunError> {
        let step = self.trainer.done();
        (self.watch)(Event::Evaluating { step });
        let adapter = self.trainer.adapter()?;
        let found = self
            .setup
            .engine
            .evaluate(Some(&adapter), self.setup.held_out)?;
        if !found.loss.is_finite() {
            return Err(TrainError::Diverged { step }.into());
        }
        let scored = Scored {
            step,
            loss: found.loss,
        };
        let better = self.figures.note_score(scored);
        if better {
            self.best = Some(self.trainer.values());
        }
        let record = EvaluationRecord {
            step,
            eval_loss: found.loss,
            eval_perplexity: found.perplexity,
            eval_tokens: found.tokens,
            best: better,
        };
        metrics.evaluation(&record, now())?;
        (self.watch)(Event::Evaluated(record));
        Ok(())
    }

    fn save(&mut self, metrics: &mut Metrics) -> Result<(), RunError> {
        // The checkpoint promises these figures.
        metrics.sync()?;
        let checkpoint = Checkpoint {
            spec: self.setup.spec.clone(),
            state: self.trainer.state(),
            figures: self.figures,
            best: self.best.clone(),
        };
        self.folder
            .checkpoints()
            .write(self.trainer.part(), &checkpoint)?;
        let step = checkpoint.state.step;
        self.saved = Some(step);
        self.saved_at = Instant::now();
        (self.watch)(Event::Saved { step });
        Ok(())
    }

    fn finish(mut self, begun: Instant, before: f64) -> Result<RunOutcome, RunError> {
        let done = self.trainer.done();
        let kept = match (self.setup.options.keep, self.figures.best, self.best.take()) {
            (Keep::Best, Some(best), Some(values)) => Some((best, values)),
            _ => None,
        };
        let (adapter, kept_step, eval_loss) = match kept {
            Some((best, values)) => (
                self.trainer.adapter_with(&values)?,
                best.step,
                Some(best.loss),
            ),
            None => {
                let scored = self.figures.scored.filter(|scored| scored.step == done);
                (
                    self.trainer.adapter()?,
                    done,
                    scored.map(|scored| scored.loss),
                )
            }
        };
        peft::save(self.folder.path(), &adapter, self.setup.base_name)?;
        self.folder.finish()?;
        let figures = self.figures;
        Ok(RunOutcome::Finished(Summary {
            steps: done,
            kept_step,
            stopped_early: done < self.trainer.steps(),
            train_loss: figures.loss_sum / (figures.target_tokens as f64).max(1.0),
            last_loss: figures.last_loss,
            eval_loss,
            tokens: figures.tokens,
            target_tokens: figures.target_tokens,
            tokens_per_second: figures.tokens as f64 / figures.step_seconds.max(1e-9),
            seconds: before + begun.elapsed().as_secs_f64(),
            peak_memory_bytes: match self.setup.engine.place().0 {
                Device::Cpu => peak_memory(),
                Device::Cuda(_) => self.device_memory,
            },
            adapter_digest: adapter.digest(),
            adapter_dir: self.folder.path().to_owned(),
        }))
    }
}

/// Seconds since 1970, for TensorBoard.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
