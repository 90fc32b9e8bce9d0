//! The simulation's progress: a bar for each stretch of work, or a line where there is no bar.

use fedlora_shell::{Progress, ProgressUnit};

/// The simulation's progress.
#[derive(Debug)]
pub(super) struct Bars {
    progress: Progress,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            progress: Progress::with_quiet(quiet, ProgressUnit::Items),
        }
    }

    /// Begins a stretch of work of `length` steps.
    pub(super) fn begin(&self, label: &str, length: u64) {
        self.progress.begin(label, length);
        if !self.progress.has_bar() {
            self.line(label);
        }
    }

    /// Sets how many steps of the stretch are done, and the loss of the last one.
    pub(super) fn step(&self, position: u64, loss: f64) {
        self.progress.set(position);
        self.progress.message(format!("loss {loss:.3}"));
    }

    /// Adds one step to those that are done.
    pub(super) fn tick(&self, message: String) {
        self.progress.tick();
        self.progress.message(message);
    }

    /// Ends the stretch.
    pub(super) fn end(&self) {
        self.progress.message("");
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.progress.finish();
    }

    /// Prints a line above the bar.
    pub(super) fn line(&self, text: &str) {
        self.progress.line(&text);
    }
}
