//! Progress on standard error: a bar on a terminal, plain lines elsewhere, nothing with
//! `--quiet`.

use std::fmt::Display;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printer::{Printer, print_error};
use crate::terminal::stderr_is_rich;

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressUnit {
    /// Steps, records or rounds.
    Items,
    /// Bytes, with their speed.
    Bytes,
}

/// A bar with lines above it. It can be used from several threads.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress with no bar yet: [`Progress::begin`] draws it.
    pub fn new(printer: &Printer, unit: ProgressUnit) -> Self {
        Self::with_quiet(printer.is_quiet(), unit)
    }

    /// As [`Progress::new`], where only `--quiet` is known.
    pub fn with_quiet(quiet: bool, unit: ProgressUnit) -> Self {
        let template = match unit {
            ProgressUnit::Items => "{prefix}{bar:30} {pos}/{len} [{elapsed}, {eta} left] {msg}",
            ProgressUnit::Bytes => {
                "{prefix}{bar:30} {bytes}/{total_bytes} [{bytes_per_sec}, {eta} left] {msg}"
            }
        };
        let bar = (!quiet && stderr_is_rich()).then(|| {
            let style =
                ProgressStyle::with_template(template).expect("both templates are well-formed");
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
        });
        Self { quiet, bar }
    }

    /// Whether a bar is drawn. Without one, a command prints now and then how far it is.
    pub fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Begins a stretch of `length` units. `label` may be empty.
    pub fn begin(&self, label: &str, length: u64) {
        let Some(bar) = &self.bar else { return };
        bar.reset();
        bar.set_length(length);
        bar.set_prefix(match label {
            "" => String::new(),
            label => format!("{label} "),
        });
        bar.set_message("");
    }

    /// Makes the stretch `length` units long, without beginning it anew.
    pub fn extend(&self, length: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(length);
        }
    }

    /// Sets how many units of the stretch are done.
    pub fn set(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    /// Continues at `position`, from which on the speed is measured.
    pub fn resume_at(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.reset_eta();
        }
    }

    /// Adds one unit to those that are done.
    pub fn tick(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Shows a text behind the bar.
    pub fn message(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }

    /// Prints a line above the bar, unless `--quiet` is given.
    pub fn line(&self, line: &impl Display) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| print_error(line)),
            None => print_error(line),
        }
    }

    /// Takes the bar away. Lines can still be printed.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
