//! The simulation's progress: one bar over all its training with the time left, or a line for each
//! stretch of work where there is no bar.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fedlora_shell::{Progress, ProgressUnit};

/// The simulation's progress.
#[derive(Debug)]
pub(super) struct Bars {
    progress: Progress,
    /// Runs that follow each other, about equally long.
    runs: u64,
    steps: Mutex<Steps>,
}

/// Steps of training, of all members together.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Steps {
    /// All that are known of.
    total: u64,
    /// Those before the stretch at hand.
    before: u64,
    /// Those of the stretch.
    length: u64,
    /// Those of the stretch that are done.
    done: u64,
}

impl Steps {
    /// Begins a stretch. The one before is over, even where not all its steps were made; what
    /// nobody had announced adds to the total.
    fn begin(&mut self, length: u64) {
        self.before += self.length;
        (self.length, self.done) = (length, 0);
        self.total = self.total.max(self.before + length);
    }

    fn position(&self) -> u64 {
        self.before + self.done.min(self.length)
    }
}

impl Bars {
    /// Progress of so many runs.
    pub(super) fn new(quiet: bool, runs: usize) -> Self {
        Self {
            runs: runs as u64,
            progress: Progress::with_quiet(quiet, ProgressUnit::Items),
            steps: Mutex::default(),
        }
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the steps of a run, from which the time left follows. The first run stands for
    /// those after it; where one has more, they add to the total.
    pub(super) fn expect(&self, steps: u64) {
        let total = {
            let mut all = self.steps();
            if all.total > 0 {
                return;
            }
            all.total = steps * self.runs;
            all.total
        };
        self.progress.begin("", total);
    }

    /// Begins a stretch of work of `length` steps.
    pub(super) fn begin(&self, label: &str, length: u64) {
        let steps = {
            let mut steps = self.steps();
            let first = steps.total == 0;
            let before = steps.total;
            steps.begin(length);
            if first {
                self.progress.begin("", steps.total);
            } else if steps.total > before {
                self.progress.extend(steps.total);
            }
            *steps
        };
        self.progress.set(steps.position());
        self.progress.message(label.to_owned());
        if !self.progress.has_bar() {
            self.line(label);
        }
    }

    /// Adds one step to those that are done.
    pub(super) fn tick(&self, message: String) {
        let at = {
            let mut steps = self.steps();
            steps.done += 1;
            steps.position()
        };
        self.progress.set(at);
        self.progress.message(message);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_is_over_all_stretches_and_never_goes_back() {
        let bars = Bars::new(true, 2);
        bars.expect(15);
        bars.expect(90);
        bars.begin("round 1", 10);
        for _ in 0..12 {
            bars.tick(String::new());
        }
        assert_eq!(bars.steps().position(), 10, "more than the stretch has");
        bars.begin("round 2", 10);
        for _ in 0..4 {
            bars.tick(String::new());
        }
        assert_eq!(bars.steps().position(), 14);
        bars.begin("alone", 25);
        // One lock at a time.
        let steps = *bars.steps();
        assert_eq!((steps.position(), steps.total), (20, 45));
    }
}
