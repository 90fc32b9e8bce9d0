//! What the programs log as errors while a case goes on.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The errors so far, and every line where all are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    errors: Arc<Mutex<Vec<String>>>,
    shown: bool,
}

impl Log {
    /// A log that also prints each line, where `shown`.
    pub(super) fn new(shown: bool) -> Self {
        Self {
            shown,
            ..Self::default()
        }
    }

    /// The errors so far.
    pub(super) fn errors(&self) -> Vec<String> {
        let errors = self.errors.lock();
        errors.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level != Level::ERROR && !self.shown {
            return;
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        if self.shown && level <= Level::INFO {
            println!("{level:5} {}:{}", event.metadata().target(), line.0);
        }
        if level == Level::ERROR {
            let errors = self.errors.lock();
            errors.unwrap_or_else(PoisonError::into_inner).push(line.0);
        }
    }
}

/// An event in words.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        use fmt::Write;
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
