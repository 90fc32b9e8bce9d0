//! What is shown of a training: a progress bar on a terminal, plain lines elsewhere, both on
//! standard error; with `--format json` a document a printed step on standard output.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use fedlora_train::{EvaluationRecord, Event, StepRecord, Summary};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::args::Format;

/// Prints a line of data. A reader that is gone ends no training.
pub(super) fn print(line: &impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints a document of one line.
pub(super) fn print_document(document: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(document) {
        print(&text);
    }
}

/// The display.
pub(super) struct TrainDisplay {
    format: Format,
    quiet: bool,
    bar: Option<ProgressBar>,
    every: usize,
    log: Option<File>,
    /// When the first step of this start began, and how many were done then.
    begun: Option<(Instant, usize)>,
}

/// A step as a document.
#[derive(Serialize)]
struct StepDocument {
    schema_version: u32,
    event: &'static str,
    steps: usize,
    #[serde(flatten)]
    record: StepRecord,
}

/// A held-out score as a document.
#[derive(Serialize)]
struct EvaluationDocument {
    schema_version: u32,
    event: &'static str,
    #[serde(flatten)]
    record: EvaluationRecord,
}

impl TrainDisplay {
    /// Shows every `every`th step; lines also go to the end of the file `log`.
    pub(super) fn new(
        format: Format,
        quiet: bool,
        every: usize,
        log: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let log = log
            .map(|path| {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("the log file {} cannot be opened", path.display()))
            })
            .transpose()?;
        let terminal = std::io::stderr().is_terminal();
        let bar = (terminal && !quiet).then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
                .expect("the template is well-formed");
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
        });
        Ok(Self {
            format,
            quiet,
            bar,
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
                    "an unfinished training stands here: going on after step {step} of {steps}"
                ));
            }
            Event::Damaged(error) => self.line(&format!("warning: {error}; using the one before")),
            Event::Step { record, steps } => self.step(record, *steps),
            Event::Evaluating { .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_message("scoring held-out records");
                }
            }
            Event::Evaluated(record) => self.evaluated(record),
            Event::StoppedEarly { step, best } => self.line(&format!(
                "stopped after step {step}: no better held-out loss since step {}",
                best.step
            )),
            Event::Saved { step } => tracing::info!(step, "a checkpoint is written"),
        }
    }

    /// Shows the end.
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

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Prints a line.
    pub(super) fn line(&mut self, text: &str) {
        self.log(text);
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn begin(&mut self, step: usize, steps: usize) {
        self.begun = Some((Instant::now(), step));
        if let Some(bar) = &self.bar {
            bar.set_length(steps as u64);
            bar.set_position(step as u64);
        }
    }

    fn step(&mut self, record: &StepRecord, steps: usize) {
        let printed = record.step.is_multiple_of(self.every) || record.step == steps;
        let figures = format!(
            "loss {:.4}  lr {:.2e}  {} tokens/s{}",
            record.loss,
            record.learning_rate,
            HumanCount(record.tokens_per_second.round() as u64),
            self.remaining(record.step, steps)
        );
        if let Some(bar) = &self.bar {
            bar.set_position(record.step as u64);
            bar.set_message(figures.clone());
        }
        if !printed {
            return;
        }
        let line = format!(
            "step {}/{steps}  epoch {:.2}  {figures}",
            record.step, record.epoch
        );
        if self.bar.is_some() {
            // The bar shows it.
            self.log(&line);
        } else if self.format == Format::Json {
            self.log(&line);
        } else {
            self.line(&line);
        }
        if self.format == Format::Json {
            print_document(&StepDocument {
                schema_version: 1,
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
        if self.format == Format::Json {
            print_document(&EvaluationDocument {
                schema_version: 1,
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
            // The log is an addition: a training does not end where it cannot be written.
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
