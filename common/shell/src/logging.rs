//! The log, on standard error.

#[cfg(feature = "otlp")]
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
#[cfg(feature = "otlp")]
use tracing_subscriber::registry::LookupSpan;
#[cfg(not(feature = "otlp"))]
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::options::GlobalOptions;
#[cfg(feature = "otlp")]
use crate::telemetry::{Settings, Telemetry};
use crate::terminal::stderr_is_rich;

/// Which log events a program shows. Levels are named as `tracing_subscriber::EnvFilter` names
/// them: `off`, `error`, `warn`, `info`, `debug`, `trace`.
#[derive(Debug, Clone, Copy)]
pub struct LogLevels {
    /// With `--quiet`.
    pub quiet: &'static str,
    /// Without `-v`, with one, with two and so on. The last level holds for all further ones.
    pub verbosity: &'static [&'static str],
    /// Of crates that are not fedlora's, always.
    pub others: &'static str,
}

impl LogLevels {
    /// Starts the log, and beside it what the environment asks to be sent to a collector. Only the first
    /// call in a process has an effect. `program` is the program's name.
    ///
    /// # Errors
    /// What the environment asks for and cannot be had.
    pub(crate) fn start(
        &self,
        options: &GlobalOptions,
        program: &str,
    ) -> Result<Exports, anyhow::Error> {
        // A target is matched by its beginning: this names every crate of fedlora.
        let filter = format!("{},fedlora={}", self.others, self.level(options));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(stderr_is_rich())
            .with_target(false)
            .with_filter(EnvFilter::new(filter));
        let exports = Exports::start(program)?;
        let log = tracing_subscriber::registry().with(lines);
        exports.init(log);
        Ok(exports)
    }

    fn level(&self, options: &GlobalOptions) -> &'static str {
        if options.quiet {
            return self.quiet;
        }
        let last = self.verbosity.len().saturating_sub(1);
        let index = usize::from(options.verbose).min(last);
        self.verbosity.get(index).copied().unwrap_or(self.others)
    }
}

/// What goes to a collector, until the program ends. Without the feature `otlp` that is nothing.
#[cfg(feature = "otlp")]
#[derive(Debug)]
pub(crate) struct Exports(Option<Telemetry>);

#[cfg(feature = "otlp")]
impl Exports {
    fn start(program: &str) -> Result<Self, anyhow::Error> {
        let settings = Settings::read(|name| std::env::var(name).ok())?;
        let telemetry = Telemetry::start(&settings, program)?;
        if let Some(telemetry) = &telemetry {
            telemetry.make_global();
        }
        Ok(Self(telemetry))
    }

    fn init<S>(&self, log: S)
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        Telemetry::init(self.0.as_ref(), log);
    }

    /// Sends what is left.
    pub(crate) fn finish(self) {
        if let Some(telemetry) = self.0 {
            telemetry.finish();
        }
    }
}

/// What goes to a collector, until the program ends. Without the feature `otlp` that is nothing.
#[cfg(not(feature = "otlp"))]
#[derive(Debug)]
pub(crate) struct Exports;

#[cfg(not(feature = "otlp"))]
impl Exports {
    fn start(_: &str) -> Result<Self, anyhow::Error> {
        Ok(Self)
    }

    fn init(&self, log: impl SubscriberInitExt) {
        let _ = log.try_init();
    }

    /// Sends what is left.
    pub(crate) fn finish(self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Format;

    #[test]
    fn each_v_is_one_level_more_and_quiet_wins() {
        let levels = LogLevels {
            quiet: "error",
            verbosity: &["warn", "info", "debug"],
            others: "warn",
        };
        let level = |quiet, verbose| {
            levels.level(&GlobalOptions {
                quiet,
                verbose,
                format: Format::Text,
            })
        };
        assert_eq!(
            [0, 1, 2, 9].map(|verbose| level(false, verbose)),
            ["warn", "info", "debug", "debug"]
        );
        assert_eq!(level(true, 2), "error");
    }
}
