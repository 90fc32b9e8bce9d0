//! The log, on standard error.

use tracing_subscriber::EnvFilter;

use crate::options::GlobalOptions;
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
    /// Starts the log. Only the first call in a process has an effect.
    pub(crate) fn start(&self, options: &GlobalOptions) {
        // A target is matched by its beginning: this names every crate of fedlora.
        let filter = format!("{},fedlora={}", self.others, self.level(options));
        let _ = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(std::io::stderr)
            .with_ansi(stderr_is_rich())
            .with_target(false)
            .try_init();
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
