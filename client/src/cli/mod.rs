//! The command line: parse, run, print, exit code. Data goes to standard output, all else to
//! standard error.

mod args;
mod check;
mod check_report;
mod check_text;
mod commands;
mod display;
mod eval;
mod fetch;
mod generate;
mod local;
mod stop;
mod threads;
mod train;
mod train_args;
mod train_display;

use std::process::ExitCode;

use clap::Parser;
use fedlora_common::exit::Exit;
use tracing_subscriber::EnvFilter;

use args::{Args, Command};
use stop::Stop;

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
    let outcome = runtime.block_on(interruptible(args));
    // Training that is still running is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("error: {}", chain(&failure.error));
            failure.exit.into()
        }
    }
}

/// Runs the command until it ends or is interrupted. A command that stops by itself is given
/// the time for it, once.
async fn interruptible(args: Args) -> Result<(), Failure> {
    let quiet = args.quiet;
    let consequence = match args.command {
        Command::Run(_) => ": this member is out of the round at hand",
        _ => "",
    };
    let stop = Stop::default();
    let mut command = std::pin::pin!(commands::run(args, stop.clone()));
    tokio::select! {
        outcome = &mut command => return outcome,
        _ = tokio::signal::ctrl_c() => {}
    }
    let interrupted = |what| Failure {
        error: anyhow::anyhow!("interrupted{what}"),
        exit: Exit::Interrupted,
    };
    if !stop.ask() {
        return Err(interrupted(consequence));
    }
    if !quiet {
        eprintln!("interrupted: finishing the step and writing a checkpoint; again to end at once");
    }
    tokio::select! {
        outcome = command => outcome,
        _ = tokio::signal::ctrl_c() => Err(interrupted(
            " twice: the training goes on from its last checkpoint when it is started again",
        )),
    }
}

/// An error with its causes. Many say their cause themselves: it is not said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || anyhow::anyhow!("the disk is full");
        assert_eq!(
            chain(&cause().context("no room")),
            "no room: the disk is full"
        );
        let both = cause().context("no room: the disk is full, sadly");
        assert_eq!(chain(&both), "no room: the disk is full, sadly");
    }
}
