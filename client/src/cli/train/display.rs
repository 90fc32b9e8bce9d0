//! What training shows: a progress bar on a terminal, plain lines elsewhere, both on standard
//! error; with `--format json` a document for each printed step on standard output.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use fedlora_shell::{Format, Printer, Progress, ProgressUnit, print_error};
use fedlora_train::{EvaluationRecord, Event, StepRecord, Summary};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

/// Shows the events of a training run.
pub(super) struct TrainDisplay {
    printer: Printer,
    progress: Progress,
    every: usize,
    log: Option<File>,
    /// When the first step of this start began, and how many were done then.
    begun: Option<(Instant, usize)>,
}

/// A step as a document.
#[derive(Serialize)]
struct StepDocument {
    event: &'static str,
    steps: usize,
    #[serde(flatten)]
    record: StepRecord,
}

/// A held-out score as a document.
#[derive(Serialize)]
struct EvaluationDocument {
    event: &'static str,
    #[serde(flatten)]
    record: EvaluationRecord,
}

impl TrainDisplay {
    /// Shows every `every`th step; lines also go to the end of the file `log`.
    pub(super) fn new(printer: &Printer, every: usize, log: Option<&Path>) -> anyhow::Result<Self> {
        let log = log
            .map(|path| {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("the log file {} cannot be opened", path.display()))
            })
            .transpose()?;
        Ok(Self {
            printer: printer.clone(),
            progress: Progress::new(printer, ProgressUnit::Items),
            every,
            log,
            begun: None,
        })
    }

    /// Shows an event.
    pub(super) fn show(&mut self, event: &Event<'_>) {
        match event {
            &Event::Begun { steps } => {
                self.begin(0, steps);
                self.line(&format!("training: {steps} steps"));
            }
            &Event::Resumed { step, steps } => {
                self.begin(step, steps);
                self.line(&format!(
                    "resuming the unfinished run after step {step} of {steps}"
                ));
            }
            Event::Damaged(error) => {
                self.line(&format!("warning: {error}; using the checkpoint before it"))
            }
            Event::Step { record, steps } => self.step(record, *steps),
            Event::Evaluating { .. } => {
                self.progress.message("scoring held-out records");
            }
            Event::Evaluated(record) => self.evaluated(record),
            Event::StoppedEarly { step, best } => self.line(&format!(
                "stopped after step {step}: no better held-out loss since step {}",
                best.step
            )),
            Event::Saved { step } => tracing::info!(step, "a checkpoint is written"),
        }
    }

    /// Shows the figures of a finished training.
    pub(super) fn summary(&mut self, summary: &Summary) {
        let memory = summary
            .peak_memory_bytes
            .map(|bytes| format!(", at most {} of memory", HumanBytes(bytes)))
            .unwrap_or_default();
        let held_out = summary
            .eval_loss
            .map(|loss| {
                format!(
                    ", held-out loss {loss:.4} (after step {})",
                    summary.kept_step
                )
            })
            .unwrap_or_default();
        self.line(&format!(
            "done: {} steps in {}, mean loss {:.4}{held_out}, {} tokens, {} tokens/s{memory}",
            summary.steps,
            duration(summary.seconds),
            summary.train_loss,
            HumanCount(summary.tokens),
            HumanCount(summary.tokens_per_second.round() as u64),
        ));
    }

    /// Removes the progress bar; lines can still be shown.
    pub(super) fn end(&mut self) {
        self.progress.finish();
    }

    /// Prints a line, and appends it to the log file.
    pub(super) fn line(&mut self, text: &str) {
        self.log(text);
        self.progress.line(&text);
    }

    /// A line that is printed even where others are not.
    pub(super) fn warning(&mut self, text: &str) {
        self.log(text);
        print_error(&text);
    }

    fn begin(&mut self, step: usize, steps: usize) {
        self.begun = Some((Instant::now(), step));
        self.progress.begin("", steps as u64);
        self.progress.resume_at(step as u64);
    }

    fn step(&mut self, record: &StepRecord, steps: usize) {
        let printed = record.step.is_multiple_of(self.every) || record.step == steps;
        let figures = format!(
            "loss {:.4}  lr {:.2e}  {} tokens/s",
            record.loss,
            record.learning_rate,
            HumanCount(record.tokens_per_second.round() as u64),
        );
        self.progress.set(record.step as u64);
        self.progress.message(figures.clone());
        if !printed {
            return;
        }
        let line = format!(
            "step {}/{steps}  epoch {:.2}  {figures}{}",
            record.step,
            record.epoch,
            self.remaining(record.step, steps)
        );
        let json = self.printer.format() == Format::Json;
        if json || self.progress.has_bar() {
            // The document or the bar shows it.
            self.log(&line);
        } else {
            self.line(&line);
        }
        if json {
            self.printer.document(&StepDocument {
                event: "step",
                steps,
                record: *record,
            });
        }
    }

    fn evaluated(&mut self, record: &EvaluationRecord) {
        let best = if record.best { ", the best so far" } else { "" };
        self.line(&format!(
            "step {}: held-out loss {:.4}, perplexity {:.2}{best}",
            record.step, record.eval_loss, record.eval_perplexity
        ));
        if self.printer.format() == Format::Json {
            self.printer.document(&EvaluationDocument {
                event: "evaluation",
                record: *record,
            });
        }
    }

    /// The time that is left, from this start's steps and held-out scores.
    fn remaining(&self, step: usize, steps: usize) -> String {
        match self.begun {
            Some((begun, first)) if step > first && step < steps => {
                let each = begun.elapsed().as_secs_f64() / (step - first) as f64;
                format!("  {} left", duration(each * (steps - step) as f64))
            }
            _ => String::new(),
        }
    }

    fn log(&mut self, text: &str) {
        if let Some(file) = &mut self.log {
            // Training does not end where its log cannot be written.
            let _ = writeln!(file, "{text}");
        }
    }
}

/// `2h05m`, `4m07s`, `12s`, `0.8s`.
fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = Duration::from_secs_f64(seconds.min(1e9)).as_secs();
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0.84, "0.8s"),
            (12.4, "12s"),
            (247.0, "4m07s"),
            (7500.0, "2h05m"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
