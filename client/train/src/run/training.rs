//! A whole training on this machine: steps, held-out scores, early stopping, checkpoints and
//! figures. It can be ended at any point and goes on from its last checkpoint, and what comes
//! out is then the same bit for bit.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use fedlora_adapter::peft::{self, PeftError};
use fedlora_adapter::{Adapter, Factors};
use fedlora_common::digest::Digest;
use serde::Serialize;

use crate::device::choice::Device;
use crate::engine::Engine;
use crate::run::checkpoint::{Checkpoint, CheckpointError, Figures, Scored};
use crate::run::metrics::{EvaluationRecord, Metrics, MetricsError, Place, StepRecord};
use crate::run::output::{OutputError, OutputFolder};
use crate::run::spec::{Difference, RunSpec};
use crate::step::options::{TrainError, TrainOptions};
use crate::step::trainer::Trainer;
use fedlora_model::Example;

/// What a training is given.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The base model.
    pub engine: &'a Engine,
    /// What adapters call it.
    pub base_name: &'a str,
    /// The adapter to begin with.
    pub adapter: &'a Adapter,
    /// What is trained on.
    pub training: &'a [Example],
    /// What is held out; may be empty.
    pub held_out: &'a [Example],
    /// How.
    pub options: &'a RunOptions,
    /// All that the result depends on.
    pub spec: &'a RunSpec,
}

/// How a whole training goes.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// The steps themselves.
    pub train: TrainOptions,
    /// Steps between held-out scores; without, there is one after each pass over the data.
    /// The last step is always scored.
    pub evaluate_every: Option<usize>,
    /// Held-out scores without a better one after which the training stops.
    pub patience: Option<usize>,
    /// Which adapter is kept.
    pub keep: Keep,
    /// What lies at most between two checkpoints.
    pub checkpoint_every: Interval,
}

/// Which adapter a training with held-out scores leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// The one with the lowest held-out loss.
    #[default]
    Best,
    /// The one after the last step.
    Last,
}

/// What lies between two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Steps, at least 1.
    Steps(usize),
    /// Time.
    Time(Duration),
}

impl Default for Interval {
    fn default() -> Self {
        Self::Time(Duration::from_secs(300))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs()),
        }
    }
}

impl FromStr for Interval {
    type Err = IntervalError;

    /// `50` are steps; `30s`, `5m` and `2h` are times.
    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let refuse = || IntervalError {
            got: text.chars().take(40).collect(),
        };
        let digits = text.trim_end_matches(['s', 'm', 'h']);
        let count: u32 = digits
            .parse()
            .ok()
            .filter(|&count| count > 0 && !digits.starts_with('+'))
            .ok_or_else(refuse)?;
        let seconds = match &text[digits.len()..] {
            "" => return Ok(Self::Steps(count as usize)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(refuse()),
        };
        Ok(Self::Time(Duration::from_secs(u64::from(count) * seconds)))
    }
}

/// Text that is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is no interval: give a number of steps (50), or a time (30s, 5m, 2h)")]
pub struct IntervalError {
    /// The text, cut at 40 characters.
    got: String,
}

/// What is happening, for who watches.
#[derive(Debug)]
pub enum Event<'a> {
    /// The first step comes next; steps of the whole training.
    Begun {
        /// Steps of the whole training.
        steps: usize,
    },
    /// An unfinished training is taken up.
    Resumed {
        /// Steps done.
        step: usize,
        /// Steps of the whole training.
        steps: usize,
    },
    /// A checkpoint that cannot be used; an older one is.
    Damaged(&'a CheckpointError),
    /// A step is done.
    Step {
        /// Its figures.
        record: StepRecord,
        /// Steps of the whole training.
        steps: usize,
    },
    /// A held-out score is being computed.
    Evaluating {
        /// Steps done.
        step: usize,
    },
    /// A held-out score.
    Evaluated(EvaluationRecord),
    /// The training ends before its last step.
    StoppedEarly {
        /// Steps done.
        step: usize,
        /// The best score.
        best: Scored,
    },
    /// A checkpoint is written.
    Saved {
        /// Steps done.
        step: usize,
    },
}

/// How a training ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is done.
    Finished(Summary),
    /// It was asked to stop, and its checkpoint is written.
    Interrupted {
        /// Steps done.
        step: usize,
        /// Steps of the whole training.
        steps: usize,
    },
}

/// A training's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Steps done.
    pub steps: usize,
    /// The step after which the adapter was what is kept.
    pub kept_step: usize,
    /// Whether it ended before its last step.
    pub stopped_early: bool,
    /// Mean loss over the whole training, in nats a counted token.
    pub train_loss: f64,
    /// The last step's mean loss.
    pub last_loss: f64,
    /// The kept adapter's held-out loss.
    pub eval_loss: Option<f64>,
    /// Tokens computed.
    pub tokens: u64,
    /// Those whose prediction counted.
    pub counted_tokens: u64,
    /// Tokens a second of the optimizer steps.
    pub tokens_per_second: f64,
    /// Seconds in all, interruptions left out.
    pub seconds: f64,
    /// The most memory of the device that was held so far: of the machine by this process, of a
    /// GPU as [`Engine::device_memory`](super::Engine::device_memory) counts it. `None` where the
    /// system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// The adapter's digest.
    pub adapter_digest: Digest,
    /// Where the adapter lies.
    pub adapter_dir: PathBuf,
}

/// Trains, from the last checkpoint in `folder` where there is one, and writes the adapter.
///
/// `folder` must have been [begun](OutputFolder::begin) with the same spec. `stop` is asked
/// between steps.
///
/// # Errors
/// What made the training impossible. What was written before stays usable.
pub fn run(
    setup: &Setup<'_>,
    folder: &mut OutputFolder,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome, RunError> {
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
    /// The values with the best score.
    best: Option<Vec<f32>>,
    /// The step of the newest checkpoint.
    saved: Option<usize>,
    saved_at: Instant,
    /// The most of a GPU that was seen in use.
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

    fn go(mut self, stop: &dyn Fn() -> bool) -> Result<Outcome, RunError> {
        let begun = Instant::now();
        let before = self.figures.seconds;
        let steps = self.trainer.steps();
        let place = Place {
            step: self.trainer.done(),
            scored: self.scored(),
        };
        let mut metrics = Metrics::open(
            self.folder.metrics(),
            &self.folder.tensorboard(),
            place,
            now(),
        )?;
        // A pass that ended with the last step calls for a score after a resumption, too.
        let mut pass_ended = self.figures.pass_ended;
        loop {
            let step = self.trainer.done();
            self.figures.seconds = before + begun.elapsed().as_secs_f64();
            if stop() {
                if step > 0 && self.saved != Some(step) {
                    self.save(&mut metrics)?;
                }
                return Ok(Outcome::Interrupted { step, steps });
            }
            if self.due(step, pass_ended) {
                self.evaluate(&mut metrics)?;
            }
            if step >= steps {
                break;
            }
            if let (Some(patience), Some(best)) = (self.setup.options.patience, self.figures.best)
                && self.figures.since_best >= patience
            {
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
            self.figures.counted_tokens += done.counted_tokens as u64;
            self.figures.loss_sum += done.loss * done.counted_tokens as f64;
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
                counted_tokens: self.figures.counted_tokens,
                tokens_per_second: done.tokens as f64 / took.max(1e-9),
                seconds: self.figures.seconds,
            };
            metrics.step(&record, now())?;
            (self.watch)(Event::Step { record, steps });
        }
        metrics.sync()?;
        self.finish(begun, before)
    }

    /// Whether the step at hand has its held-out score.
    fn scored(&self) -> bool {
        let scored = self.figures.scored.map(|scored| scored.step);
        scored == Some(self.trainer.done())
    }

    fn due(&self, step: usize, pass_ended: bool) -> bool {
        if self.setup.held_out.is_empty() || step == 0 || self.scored() {
            return false;
        }
        let now = match self.setup.options.evaluate_every {
            Some(every) => step.is_multiple_of(every.max(1)),
            None => pass_ended,
        };
        now || step >= self.trainer.steps()
    }

    fn checkpoint_due(&self, step: usize) -> bool {
        if step == 0 || self.saved == Some(step) {
            return false;
        }
        match self.setup.options.checkpoint_every {
            Interval::Steps(every) => step - self.saved.unwrap_or(0) >= every,
            Interval::Time(time) => self.saved_at.elapsed() >= time,
        }
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
        let better = self.figures.best.is_none_or(|best| scored.loss < best.loss);
        self.figures.scored = Some(scored);
        if better {
            self.figures.best = Some(scored);
            self.figures.since_best = 0;
            self.best = Some(self.trainer.values());
        } else {
            self.figures.since_best += 1;
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
        // First what the checkpoint says is there.
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

    fn finish(mut self, begun: Instant, before: f64) -> Result<Outcome, RunError> {
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
        Ok(Outcome::Finished(Summary {
            steps: done,
            kept_step,
            stopped_early: done < self.trainer.steps(),
            train_loss: figures.loss_sum / (figures.counted_tokens as f64).max(1.0),
            last_loss: figures.last_loss,
            eval_loss,
            tokens: figures.tokens,
            counted_tokens: figures.counted_tokens,
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

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// The most memory of the machine that this process held so far, in bytes: Linux says it in
/// `/proc`.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// A training that ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A step or an evaluation.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint of another training, which `run.json` does not know of.
    #[error(
        "the checkpoint is of another training:{} \n--restart throws it away and begins anew",
        differences.iter().map(|difference| format!("\n  {difference}")).collect::<String>()
    )]
    OtherCheckpoint {
        /// In what it differs.
        differences: Vec<Difference>,
    },
    /// The folder.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The figures.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The adapter cannot be written.
    #[error(transparent)]
    Peft(#[from] PeftError),
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
