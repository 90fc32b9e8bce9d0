//! The command line: parse, run, print, exit code. Data goes to standard output, all else to
//! standard error.

mod args;
mod check;
mod check_report;
mod check_text;
mod commands;
mod display;
mod eval;
mod generate;
mod train;

use std::process::ExitCode;

use clap::Parser;
use fedlora_common::exit::Exit;
use tracing_subscriber::EnvFilter;

use args::Args;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            // Nothing can be done where the terminal is gone.
            let _ = error.print();
            return exit.into();
        }
    };
    start_logging(&args);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = commands::run(args) => outcome,
            _ = tokio::signal::ctrl_c() => Err(Failure {
                error: anyhow::anyhow!("interrupted: this member is out of the round at hand"),
                exit: Exit::Interrupted,
            }),
        }
    });
    // Training that is still running is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("error: {:#}", failure.error);
            failure.exit.into()
        }
    }
}

/// An error with the exit code that goes with it.
pub(crate) struct Failure {
    pub(crate) error: anyhow::Error,
    pub(crate) exit: Exit,
}

impl Failure {
    /// An error with its exit code.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            exit,
        }
    }
}

fn start_logging(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => "error",
        // The display shows what happens; the log adds what goes wrong.
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::new(format!(
        "warn,fedlora_client={level},fedlora_common={level}"
    ));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(display::colour())
        .with_target(false)
        .init();
}
