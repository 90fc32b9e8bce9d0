//! The command line of `fedlora`: commands, their options, what they print.
//!
//! `args` has the options that commands share, each command a module of its own, `exits` the exit
//! code of every error, `hints` what would help. Only this module names flags.

mod agent;
mod args;
mod background;
mod check;
mod data;
mod eval;
pub mod exits;
mod fetch;
mod generate;
mod hints;
mod join;
mod leave;
mod memory;
mod open;
mod plan;
mod roster;
mod run;
mod runs;
mod status;
mod train;

use background::local;
use clap::{Parser, Subcommand};
use fedlora_shell::{
    DocumentsCommand, Failure, GlobalOptions, Interruption, LogLevels, Program, Shell,
};
pub use open::fetch_base;

/// A consortium member's program: joins a federation and fine-tunes with it.
///
/// Records, deltas and keys never leave this machine; only masked updates do.
#[derive(Debug, Parser)]
#[command(
    name = "fedlora",
    version,
    propagate_version = true,
    after_help = "Example:\n  fedlora train --base ./Llama-3.2-1B --data records.jsonl --out adapter"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a federation: make keys here, get a certificate, pin the authority.
    #[command(after_help = "Example:\n  fedlora join fedlora1.MFRGG... --dir ~/fedlora")]
    Join(join::JoinArgs),
    /// Take part in the federation's run until it ends; write the final adapter.
    #[command(
        after_help = "Example:\n  fedlora run --dir ~/fedlora --base ./Llama-3.2-1B --data records.jsonl"
    )]
    Run(run::RunArgs),
    /// Wait for the federation's runs, for ever, and take part where `[agent]` in fedlora.toml says so.
    #[command(
        after_help = "Example:\n  fedlora agent --dir ~/fedlora --base ./Llama-3.2-1B --data records.jsonl"
    )]
    Agent(agent::AgentArgs),
    /// Show or answer the plan that waits for this member's answer.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora plan show --dir ~/fedlora"
    )]
    Plan(plan::PlanCommand),
    /// Fetch an adapter that the aggregator has published, of any run of the federation.
    #[command(after_help = "Example:\n  fedlora fetch --dir ~/fedlora --out adapter")]
    Fetch(fetch::FetchArgs),
    /// Show what this member's agent does.
    #[command(after_help = "Example:\n  fedlora status --dir ~/fedlora --format json")]
    Status(status::StatusArgs),
    /// Begin no run from now on; the agent goes on with the one that it is in.
    #[command(after_help = "Example:\n  fedlora pause --dir ~/fedlora")]
    Pause(status::StatusArgs),
    /// Begin runs again.
    #[command(after_help = "Example:\n  fedlora resume --dir ~/fedlora")]
    Resume(status::StatusArgs),
    /// Leave the federation for good: the aggregator removes this member, and its keys are deleted.
    #[command(after_help = "Example:\n  fedlora leave --dir ~/fedlora --yes")]
    Leave(leave::LeaveArgs),
    /// Show the federation's members as this member knows them: names, key fingerprints, words.
    #[command(after_help = "Example:\n  fedlora roster --dir ~/fedlora --format json")]
    Roster(roster::RosterArgs),
    /// Show the runs that this member took part in, verified, with words to compare by telephone.
    #[command(after_help = "Example:\n  fedlora runs --dir ~/fedlora")]
    Runs(runs::RunsArgs),
    /// Show what training would use: the records as the model sees them, memory, device.
    #[command(
        after_help = "Example:\n  fedlora check --base ./Llama-3.2-1B --data records.jsonl --show 1"
    )]
    Check(check::CheckArgs),
    /// Fine-tune an adapter on this machine, without a federation.
    #[command(
        after_help = "Example:\n  fedlora train --base ./Llama-3.2-1B --data records.jsonl --hold-out 0.1 --out adapter"
    )]
    Train(Box<train::TrainArgs>),
    /// Score a base model or an adapter on records.
    #[command(
        after_help = "Example:\n  fedlora eval --base ./Llama-3.2-1B --adapter adapter --data held-out.jsonl"
    )]
    Eval(eval::EvalArgs),
    /// Answer a prompt, or continue it.
    #[command(
        after_help = "Example:\n  fedlora generate --base ./Llama-3.2-1B --adapter adapter --prompt 'What is CWE-79?'"
    )]
    Generate(generate::GenerateArgs),
    #[command(flatten)]
    Documents(DocumentsCommand),
}

impl Program for Cli {
    const HOLDS_KEYS: bool = true;
    const LOG_LEVELS: LogLevels = LogLevels {
        quiet: "error",
        // The progress shows what happens; the log adds what goes wrong.
        verbosity: &["warn", "info", "debug", "trace"],
        others: "warn",
    };

    fn interruption(&self) -> Interruption {
        let interruption = Interruption::default();
        match self.command {
            Command::Run(_) => Interruption {
                ended: "interrupted: this member takes no part until it is started again",
                ..interruption
            },
            Command::Agent(_) => Interruption {
                stopping: "stopping; a run that is not over goes on when the agent is started again",
                ..interruption
            },
            Command::Train(_) => train::INTERRUPTION,
            _ => interruption,
        }
    }

    async fn run(self, Shell { printer, stop }: Shell) -> Result<(), Failure> {
        match self.command {
            Command::Join(args) => join::run(&args, &printer).await,
            Command::Run(args) => run::run(args, &printer, stop).await,
            Command::Agent(args) => agent::run(args, &printer, stop).await,
            Command::Plan(command) => plan::run(&command, &printer),
            Command::Fetch(args) => fetch::run(&args, &printer).await,
            Command::Status(args) => status::run(&args, &printer),
            Command::Pause(args) => status::set_paused(&args, true, &printer),
            Command::Resume(args) => status::set_paused(&args, false, &printer),
            Command::Leave(args) => leave::run(&args, &printer).await,
            Command::Roster(args) => roster::run(&args, &printer),
            Command::Runs(args) => runs::run(&args, &printer),
            Command::Check(args) => local(move || check::run(&args, &printer)).await,
            Command::Train(args) => local(move || train::run(&args, &printer, &stop)).await,
            Command::Eval(args) => local(move || eval::run(&args, &printer)).await,
            Command::Generate(args) => local(move || generate::run(&args, &printer)).await,
            // The shell has run it.
            Command::Documents(_) => Ok(()),
        }
    }

    fn shell_options(&self) -> (&GlobalOptions, Option<&DocumentsCommand>) {
        match &self.command {
            Command::Documents(documents) => (&self.global, Some(documents)),
            _ => (&self.global, None),
        }
    }
}

#[cfg(test)]
mod tests;
