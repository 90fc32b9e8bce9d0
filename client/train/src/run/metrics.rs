//! A run's figures as lines of JSON, and the same for TensorBoard. A resumed run continues after
//! the last line that its checkpoint knows of.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run::resume_point::ResumePoint;
use crate::run::tensorboard::EventFile;

/// The figures of one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer steps done.
    pub step: usize,
    /// Epochs done, fractions included.
    pub epoch: f64,
    /// Mean loss in nats a target token.
    pub loss: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
    /// The joint L2 norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens computed since the run began.
    pub tokens: u64,
    /// Target tokens among them.
    #[serde(rename = "counted_tokens")]
    pub target_tokens: u64,
    /// Tokens a second of this step.
    pub tokens_per_second: f64,
    /// Seconds since the run began, interruptions excluded.
    pub seconds: f64,
}

/// The figures of one held-out score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Optimizer steps done.
    pub step: usize,
    /// Mean loss in nats a target token.
    pub eval_loss: f64,
    /// `exp(eval_loss)`.
    pub eval_perplexity: f64,
    /// Target tokens scored.
    pub eval_tokens: usize,
    /// Whether it is the best so far.
    pub best: bool,
}

/// The metrics file and TensorBoard's event file, open for appending.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    lines: File,
    events: EventFile,
}

/// What tells the kind of a line: only held-out scores have an `eval_loss`.
#[derive(Deserialize)]
struct Line {
    step: usize,
    eval_loss: Option<f64>,
}

impl Metrics {
    /// Opens the files, creates them where they are missing, and removes all figures after `from`.
    /// `now` is in seconds since 1970.
    pub(crate) fn open(
        lines: PathBuf,
        tensorboard: &Path,
        from: ResumePoint,
        now: f64,
    ) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError::new(&lines, source);
        let old = match std::fs::read(&lines) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed(source)),
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&lines)
            .map_err(failed)?;
        file.set_len(kept(&old, from) as u64).map_err(failed)?;
        let events = EventFile::open(tensorboard, from, now)
            .map_err(|source| MetricsError::new(tensorboard, source))?;
        Ok(Self {
            path: lines,
            lines: file,
            events,
        })
    }

    /// Appends a step's figures.
    pub(crate) fn step(&mut self, record: &StepRecord, now: f64) -> Result<(), MetricsError> {
        self.line(record)?;
        self.event(
            record.step,
            now,
            &[
                ("train/loss", record.loss),
                ("train/learning_rate", record.learning_rate),
                ("train/grad_norm", record.gradient_norm),
                ("train/tokens_per_second", record.tokens_per_second),
                ("train/epoch", record.epoch),
            ],
        )
    }

    /// Appends a held-out score.
    pub(crate) fn evaluation(
        &mut self,
        record: &EvaluationRecord,
        now: f64,
    ) -> Result<(), MetricsError> {
        self.line(record)?;
        self.event(
            record.step,
            now,
            &[
                ("eval/loss", record.eval_loss),
                ("eval/perplexity", record.eval_perplexity),
            ],
        )
    }

    /// Waits until the appended figures are on the disk.
    pub(crate) fn sync(&mut self) -> Result<(), MetricsError> {
        self.lines
            .sync_data()
            .and_then(|()| self.events.sync())
            .map_err(|source| MetricsError::new(&self.path, source))
    }

    fn line(&mut self, record: &impl Serialize) -> Result<(), MetricsError> {
        // One write per line: a killed process leaves at most one line incomplete.
        serde_json::to_string(record)
            .map_err(io::Error::from)
            .and_then(|text| self.lines.write_all(format!("{text}\n").as_bytes()))
            .map_err(|source| MetricsError::new(&self.path, source))
    }

    fn event(
        &mut self,
        step: usize,
        now: f64,
        scalars: &[(&str, f64)],
    ) -> Result<(), MetricsError> {
        self.events
            .scalars(now, step as u64, scalars)
            .map_err(|source| MetricsError::new(self.events.path(), source))
    }
}

/// Bytes of the complete lines up to `from`.
fn kept(old: &[u8], from: ResumePoint) -> usize {
    let mut kept = 0;
    for line in old.split_inclusive(|&byte| byte == b'\n') {
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice::<Line>(line) {
            Ok(read) if whole && from.keeps(read.step, read.eval_loss.is_some()) => {
                kept += line.len();
            }
            _ => break,
        }
    }
    kept
}

/// A metrics or event file that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the run's figures cannot be written to {}: {source}", path.display())]
pub struct MetricsError {
    /// The file's path.
    pub path: PathBuf,
    /// The operating system's reason.
    pub source: io::Error,
}

impl MetricsError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tensorboard;

    fn step(step: usize) -> StepRecord {
        StepRecord {
            step,
            epoch: 0.5,
            loss: 0.375,
            learning_rate: 1e-4,
            gradient_norm: 0.7,
            tokens: 100 * step as u64,
            target_tokens: 10,
            tokens_per_second: 50.0,
            seconds: 2.0,
        }
    }

    fn score(step: usize) -> EvaluationRecord {
        EvaluationRecord {
            step,
            eval_loss: 2.0,
            eval_perplexity: 7.4,
            eval_tokens: 9,
            best: true,
        }
    }

    /// The steps in the file, negative where they are held-out scores.
    fn steps(path: &Path) -> Vec<i64> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| {
            let line: Line = serde_json::from_str(line).unwrap();
            let step = line.step as i64;
            if line.eval_loss.is_some() {
                -step
            } else {
                step
            }
        });
        lines.collect()
    }

    #[test]
    fn resuming_removes_what_the_checkpoint_does_not_know() {
        let dir = tempfile::tempdir().unwrap();
        let lines = dir.path().join("metrics.jsonl");
        let board = dir.path().join("tensorboard");
        let open = |step, scored| {
            Metrics::open(lines.clone(), &board, ResumePoint { step, scored }, 1e9).unwrap()
        };
        let mut metrics = open(0, false);
        for at in 1..=4 {
            metrics.step(&step(at), 1e9).unwrap();
            metrics.evaluation(&score(at), 1e9).unwrap();
        }
        drop(metrics);
        assert_eq!(steps(&lines), [1, -1, 2, -2, 3, -3, 4, -4]);
        // A line that was cut off, as by a full disk.
        let mut file = OpenOptions::new().append(true).open(&lines).unwrap();
        file.write_all(b"{\"step\":2,\"lo").unwrap();
        open(4, true);
        assert_eq!(steps(&lines), [1, -1, 2, -2, 3, -3, 4, -4]);
        open(3, true);
        assert_eq!(steps(&lines), [1, -1, 2, -2, 3, -3]);
        let mut metrics = open(2, false);
        assert_eq!(steps(&lines), [1, -1, 2]);
        metrics.evaluation(&score(2), 1e9).unwrap();
        metrics.step(&step(3), 1e9).unwrap();
        drop(metrics);
        assert_eq!(steps(&lines), [1, -1, 2, -2, 3]);
        let read: StepRecord = serde_json::from_str(
            std::fs::read_to_string(&lines)
                .unwrap()
                .lines()
                .last()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(read, step(3));
        let files: Vec<_> = std::fs::read_dir(&board).unwrap().collect();
        assert_eq!(files.len(), 1);
        let events = std::fs::read(files[0].as_ref().unwrap().path()).unwrap();
        assert_eq!(tensorboard::steps(&events), [0, 1, 1, 2, 2, 3]);
    }
}
