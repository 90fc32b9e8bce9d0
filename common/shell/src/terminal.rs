//! Whether a stream is a terminal that takes colours and redrawn lines.

use std::io;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};

/// Whether standard output is a terminal, and neither `NO_COLOR` nor `TERM=dumb` asks for plain
/// lines.
pub fn stdout_is_rich() -> bool {
    rich(&io::stdout())
}

/// Whether standard error is a terminal, and neither `NO_COLOR` nor `TERM=dumb` asks for plain
/// lines.
pub fn stderr_is_rich() -> bool {
    rich(&io::stderr())
}

fn rich(stream: &impl RawStream) -> bool {
    // `CLICOLOR_FORCE` is not enough: a bar redrawn in a file is noise.
    stream.is_terminal() && AutoStream::choice(stream) != ColorChoice::Never
}
