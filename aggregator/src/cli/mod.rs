//! The command line: parse, run, print, exit code. Data goes to standard output, all else to
//! standard error.

mod args;
mod commands;

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
    match runtime.block_on(commands::run(args)) {
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

fn start_logging(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // Our own targets only: the transport's internals would drown them.
    let filter = EnvFilter::new(format!(
        "warn,fedlora_aggregator={level},fedlora_common={level}"
    ));
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
}
