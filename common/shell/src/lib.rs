//! What surrounds each of the programs: the path from the arguments to the exit code, printing,
//! progress, interruption, the clock, and the reference made from the command line itself.
//!
//! A program implements [`Program`] and calls [`run_main`]. Data goes to standard output, all
//! else to standard error. This crate knows no protocol and no model.

mod clock;
pub mod disk;
mod documents;
mod failure;
pub mod html;
mod logging;
mod memory;
pub mod open_files;
mod options;
mod printer;
mod program;
mod progress;
mod prompt;
mod reference;
mod stop;
#[cfg(feature = "otlp")]
mod telemetry;
mod terminal;
pub mod values;

/// The target of the spans that a collector of traces gets, where the program is built with the feature
/// `otlp`. The log shows none of them.
pub const SPANS: &str = "otlp";

pub use clock::now;
pub use documents::DocumentsCommand;
pub use failure::Failure;
pub use logging::LogLevels;
pub use options::{Format, GlobalOptions};
pub use printer::{Printer, print_error};
pub use program::{Interruption, Program, Shell, command, run_main};
pub use progress::{Progress, ProgressUnit};
pub use prompt::ask_secret;
pub use reference::{exit_codes, reference, without_example};
pub use stop::Stop;
pub use terminal::{stderr_is_rich, stdout_is_rich};
