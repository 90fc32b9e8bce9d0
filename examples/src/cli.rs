//! The command line of `fedlora-sim`: from the arguments to the exit code.

use anyhow::anyhow;
use clap::{Parser, Subcommand};
use fedlora_common::exit::Exit;
use fedlora_shell::{DocumentsCommand, Failure, GlobalOptions, LogLevels, Program, Shell};

use crate::attacks::{self, AttackName};
use crate::secagg::{self, SecaggArgs};
use crate::simulation;

/// Runs a whole federation on this machine: one aggregator and several members.
///
/// QUIC, certificates and secure aggregation are real; base and data are embedded by default.
#[derive(Debug, Parser)]
#[command(
    name = "fedlora-sim",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Example:\n  fedlora-sim --members 6 --rounds 2 --baselines --out sim-out"
)]
pub struct Cli {
    #[command(flatten)]
    simulation: simulation::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attack a federation as a malicious aggregator or member, and see whether it holds.
    ///
    /// Each attack speaks the real protocol, in memory, with the real members' machines.
    ///
    /// It succeeds where the attacker has what it is after in the end, such as a member's update.
    ///
    /// Where an attack succeeds, the program ends with exit code 9.
    #[command(after_help = "Example:\n  fedlora-sim attack all --format json")]
    Attack {
        /// The attack.
        #[arg(value_name = "NAME", value_parser = attacks::selection())]
        names: Selected,
    },
    /// Measure what secure aggregation costs, and how exact it is.
    ///
    /// One round in memory, with the real phases and cryptography, without training and network.
    ///
    /// Figures are medians over the repeats.
    #[command(
        after_help = "Example:\n  fedlora-sim secagg --members 10 --elements 1000000 --drop 1"
    )]
    Secagg(SecaggArgs),
    #[command(flatten)]
    Documents(DocumentsCommand),
}

/// One attack, or all: clap takes a `Vec` for an option that is given several times.
type Selected = std::sync::Arc<[AttackName]>;

impl Program for Cli {
    const LOG_LEVELS: LogLevels = LogLevels {
        quiet: "off",
        // Dropped members and refusals are part of the simulation: its progress shows them.
        verbosity: &["error", "info", "debug"],
        others: "error",
    };
    const WORKER_THREADS: usize = 4;

    fn shell_options(&self) -> (&GlobalOptions, Option<&DocumentsCommand>) {
        let documents = match &self.command {
            Some(Command::Documents(documents)) => Some(documents),
            Some(Command::Attack { .. } | Command::Secagg(_)) | None => None,
        };
        (&self.simulation.global, documents)
    }

    async fn run(self, shell: Shell) -> Result<(), Failure> {
        match self.command {
            Some(Command::Attack { names }) => attack(&names, &shell),
            Some(Command::Secagg(args)) => measure(&args, &shell),
            // The shell has run it.
            Some(Command::Documents(_)) => Ok(()),
            None => simulation::simulate(&self.simulation, &shell.printer).await,
        }
    }
}

/// Plays the attacks, prints what came of them, and fails where one succeeds.
fn attack(names: &[AttackName], shell: &Shell) -> Result<(), Failure> {
    let played = tokio::task::block_in_place(|| attacks::play(names));
    let document = played.map_err(|error| Failure::new(Exit::Failed, error))?;
    shell
        .printer
        .result(&document, || attacks::render(&document));
    match document.succeeded()[..] {
        [] => Ok(()),
        ref names => Err(Failure::new(
            Exit::Integrity,
            anyhow!("the federation did not hold against {}", names.join(", ")),
        )),
    }
}

/// Measures secure aggregation, and fails where a sum is not exact.
fn measure(args: &SecaggArgs, shell: &Shell) -> Result<(), Failure> {
    let measured = tokio::task::block_in_place(|| secagg::measure(args));
    let report = measured.map_err(|error| Failure::new(error.exit(), error))?;
    shell.printer.result(&report, || secagg::render(&report));
    if report.exact {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Integrity,
        anyhow!("the unmasked sum is not the sum of the members' encoded updates"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_an_example() {
        let command = fedlora_shell::command::<Cli>();
        command.clone().debug_assert();
        assert!(fedlora_shell::without_example(&command).is_empty());
    }
}
