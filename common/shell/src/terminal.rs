//! Whether a stream is a terminal that takes colours and redrawn lines.

use std::ffi::OsString;
use std::io;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};

/// Whether standard output is a terminal, and none of `NO_COLOR`, `CLICOLOR=0` and `TERM=dumb` asks
/// for plain lines.
pub fn stdout_is_rich() -> bool {
    rich(&io::stdout())
}

/// Whether standard error is a terminal, and none of `NO_COLOR`, `CLICOLOR=0` and `TERM=dumb` asks
/// for plain lines.
pub fn stderr_is_rich() -> bool {
    rich(&io::stderr())
}

/// Whether the environment asks for plain lines, on a terminal too.
pub(crate) fn wants_plain() -> bool {
    plain(|variable| std::env::var_os(variable))
}

fn rich(stream: &impl RawStream) -> bool {
    // `CLICOLOR_FORCE` is not enough: a bar redrawn in a file is noise.
    stream.is_terminal() && !wants_plain() && AutoStream::choice(stream) != ColorChoice::Never
}

/// Whether these variables ask for plain lines, whatever others ask for.
fn plain(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is = |name: &str, value: &str| variable(name).is_some_and(|found| found == *value);
    let set = |name: &str| variable(name).is_some_and(|found| !found.is_empty());
    is("TERM", "dumb") || is("CLICOLOR", "0") || set("NO_COLOR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumb_terminal_stays_plain_whatever_else_is_set() {
        let with = |variables: &[(&str, &str)]| {
            plain(|asked| {
                let found = variables.iter().find(|(name, _)| *name == asked);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        assert!(!with(&[]));
        assert!(!with(&[("TERM", "xterm-256color"), ("CLICOLOR", "1")]));
        assert!(!with(&[("TERM", "xterm"), ("NO_COLOR", "")]));
        // Each of these alone made bars and colours again on a dumb terminal.
        for force in [("CLICOLOR", "1"), ("CLICOLOR_FORCE", "1"), ("CI", "true")] {
            assert!(with(&[("TERM", "dumb"), force]), "{force:?}");
        }
        assert!(with(&[("TERM", "xterm"), ("NO_COLOR", "1")]));
        assert!(with(&[("TERM", "xterm"), ("CLICOLOR", "0")]));
    }
}
