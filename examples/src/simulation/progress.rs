//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The simulation's progress.
#[derive(Debug)]
pub(super) struct Bars {
    quiet: bool,
    terminal: bool,
    bar: ProgressBar,
    done: AtomicU64,
}

impl Bars {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style =
            ProgressStyle::with_template("{prefix:24} {bar:30} {pos}/{len} [{elapsed}] {msg}")
                .expect("the template is well-formed");
        Self {
            quiet,
            terminal,
            bar: ProgressBar::with_draw_target(Some(0), target).with_style(style),
            done: AtomicU64::new(0),
        }
    }

    /// A new stretch of work.
    pub(super) fn begin(&self, label: &str, length: u64) {
        self.bar.reset();
        self.bar.set_length(length);
        self.bar.set_prefix(label.to_owned());
        self.bar.set_message("");
        self.done.store(0, Ordering::Relaxed);
        if !self.terminal {
            self.line(label);
        }
    }

    /// Where the stretch is.
    pub(super) fn step(&self, position: u64, loss: f64) {
        self.bar.set_position(position);
        self.bar.set_message(format!("loss {loss:.3}"));
    }

    /// One step more in the stretch.
    pub(super) fn tick(&self, message: String) {
        self.bar
            .set_position(self.done.fetch_add(1, Ordering::Relaxed) + 1);
        self.bar.set_message(message);
    }

    /// The stretch is over.
    pub(super) fn end(&self) {
        self.bar.set_message("");
    }

    /// All is over.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A line of its own.
    pub(super) fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.terminal {
            self.bar.suspend(|| eprintln!("{text}"));
        } else {
            eprintln!("{text}");
        }
    }
}
