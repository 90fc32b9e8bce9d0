//! The path of a program from its arguments to its exit code.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::{ColorChoice, Command, Parser};
use fedlora_common::exit::Exit;

use crate::documents::DocumentsCommand;
use crate::failure::Failure;
use crate::logging::LogLevels;
use crate::memory;
use crate::options::GlobalOptions;
use crate::printer::{Printer, print_error};
use crate::stop::{Interrupts, Stop};
use crate::terminal::wants_plain;

/// A program's command line.
pub trait Program: Parser {
    /// The log levels for `--quiet` and `-v`.
    const LOG_LEVELS: LogLevels;
    /// Threads of the asynchronous runtime.
    const WORKER_THREADS: usize = 2;

    /// The global options as given, and the command that prints something about the command line
    /// itself, where it is one.
    fn shell_options(&self) -> (&GlobalOptions, Option<&DocumentsCommand>);

    /// What the program says when it is interrupted.
    fn interruption(&self) -> Interruption {
        Interruption::default()
    }

    /// Whether the program holds keys: its memory then goes into no core dump, and no other process of
    /// the same user reads it.
    const HOLDS_KEYS: bool = false;

    /// Runs the command.
    fn run(self, shell: Shell) -> impl Future<Output = Result<(), Failure>>;
}

/// What a command gets from the shell around it.
#[derive(Debug, Clone)]
pub struct Shell {
    /// Where it prints.
    pub printer: Printer,
    /// How it learns that it is to stop.
    pub stop: Stop,
}

/// What a program says when ctrl-c, SIGTERM or SIGHUP interrupts it.
#[derive(Debug, Clone, Copy)]
pub struct Interruption {
    /// The error where the command ends at once.
    pub ended: &'static str,
    /// The note where the command stops by itself.
    pub stopping: &'static str,
    /// The error where a second interruption does not wait for that.
    pub forced: &'static str,
}

impl Default for Interruption {
    fn default() -> Self {
        Self {
            ended: "interrupted",
            stopping: "interrupted: stopping; interrupt again to end at once",
            forced: "interrupted twice",
        }
    }
}

/// Parses the arguments, runs the command until it ends or is interrupted, and gives the exit
/// code.
pub fn run_main<P: Program>() -> ExitCode {
    let mut line = command::<P>();
    if wants_plain() {
        line = line.color(ColorChoice::Never);
    }
    let parsed = line.try_get_matches();
    let program = match parsed.and_then(|mut matches| P::from_arg_matches_mut(&mut matches)) {
        Ok(program) => program,
        Err(error) => {
            let shown = error.to_string();
            let arguments: Vec<String> = std::env::args_os()
                .map(|it| it.to_string_lossy().into_owned())
                .collect();
            match without_secrets(&shown, &arguments) {
                Some(masked) => print_error(&masked.trim_end()),
                // Nothing can be done where the terminal is gone.
                None => _ = error.print(),
            }
            // `--help` and `--version` are printed on standard output.
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    let (options, documents) = program.shell_options();
    let printer = Printer::new(options);
    let exports = match P::LOG_LEVELS.start(options, P::command().get_name()) {
        Ok(exports) => exports,
        Err(error) => {
            let failure = Failure::new(Exit::Configuration, error);
            print_error(&failure);
            return failure.exit().into();
        }
    };
    if P::HOLDS_KEYS {
        memory::keep_to_itself();
    }
    let outcome = match documents {
        Some(documents) => documents.run(command::<P>(), &printer),
        None => in_runtime(program, printer.clone()),
    };
    exports.finish();
    let outcome = outcome.and_then(|()| match printer.error() {
        Some(error) => Err(Failure::new(
            Exit::Failed,
            anyhow!("cannot write to standard output: {error}"),
        )),
        None => Ok(()),
    });
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            print_error(&failure);
            failure.exit().into()
        }
    }
}

/// How an invitation token begins. It is a secret: who has it may join.
const INVITATION: &str = "fedlora1.";
/// The shortest part of a token, cut up by a mail program, that is kept out of errors.
const SHORTEST_PART: usize = 12;

/// An error about the command line without what may be part of a secret in it; `None` where it
/// holds none. A token that was wrapped is several arguments, from its beginning on.
fn without_secrets(error: &str, arguments: &[String]) -> Option<String> {
    let first = arguments
        .iter()
        .position(|argument| argument.contains(INVITATION))?;
    let parts = arguments[first..]
        .iter()
        .flat_map(|argument| argument.split('='));
    let secret = parts.filter(|part| part.len() >= SHORTEST_PART && !part.starts_with('-'));
    let masked = secret.fold(error.to_owned(), |error, part| error.replace(part, "..."));
    (masked != error).then_some(masked)
}

/// The program's command line as clap has it, with its name in the examples of the commands that
/// all programs share.
pub fn command<P: Parser>() -> Command {
    let command = P::command();
    let name = command.get_name().to_owned();
    command.mut_subcommands(|child| match child.get_after_help() {
        Some(help) => {
            let help = help.to_string().replace("PROGRAM", &name);
            child.after_help(help)
        }
        None => child,
    })
}

fn in_runtime<P: Program>(program: P, printer: Printer) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(P::WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let outcome = runtime.block_on(interruptible(program, printer));
    // Work that still computes is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Runs the command until it ends or is interrupted. A command that has promised to stop by
/// itself is given the time for it, once.
async fn interruptible<P: Program>(program: P, printer: Printer) -> Result<(), Failure> {
    let said = program.interruption();
    let interrupted = |text: &str| Err(Failure::new(Exit::Interrupted, anyhow!("{text}")));
    let mut interrupts = Interrupts::listen().map_err(|error| Failure::new(Exit::Failed, error))?;
    let stop = Stop::default();
    let mut command = std::pin::pin!(program.run(Shell {
        printer: printer.clone(),
        stop: stop.clone(),
    }));
    tokio::select! {
        outcome = &mut command => return outcome,
        () = interrupts.next() => {}
    }
    if !stop.ask() {
        return interrupted(stop.said().as_deref().unwrap_or(said.ended));
    }
    printer.note(&said.stopping);
    tokio::select! {
        outcome = command => outcome,
        () = interrupts.next() => interrupted(said.forced),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_the_command_line_does_not_repeat_a_token() {
        let masked = |error: &str, line: &str| {
            let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
            without_secrets(error, &arguments)
        };
        let error = "error: unexpected argument 'QkJCQlNFQ1JFVA' found";
        let line = "fedlora join fedlora1.AAAAAAAAAAAA QkJCQlNFQ1JFVA";
        let shown = "error: unexpected argument '...' found";
        assert_eq!(masked(error, line).as_deref(), Some(shown));
        let whole = error.replace("QkJCQlNFQ1JFVA", "fedlora1.AAAA");
        assert_eq!(
            masked(&whole, "fedlora jion fedlora1.AAAA").as_deref(),
            Some(shown)
        );
        assert_eq!(
            masked(&whole, "fedlora join --to=fedlora1.AAAA").as_deref(),
            Some(shown)
        );
        let ordinary = "error: unexpected argument '--directory' found";
        assert_eq!(
            masked(ordinary, "fedlora join fedlora1.AAAA --directory x"),
            None
        );
        assert_eq!(masked(ordinary, "fedlora check --directory x"), None);
    }
}
