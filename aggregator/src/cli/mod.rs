//! The command line of `fedlora-aggregator`: commands, their options, what they print.
//!
//! `exits` has the exit code of every error. Only this module names flags.

mod adapter;
mod audit;
mod audit_log;
mod ca;
mod ca_apart;
mod directories;
pub mod exits;
mod hints;
mod operator;
mod passphrase;
mod plan_notes;
mod retention;
mod roster;
mod runs;
mod serve;
mod status;
mod store;
mod watch;

use crate::registry::InvitationFor;
use clap::{Parser, Subcommand};
use fedlora_shell::{
    DocumentsCommand, Failure, GlobalOptions, Interruption, LogLevels, Program, Shell,
};

/// The operator's program: invites members, coordinates rounds, publishes merged adapters.
///
/// It never sees a single member's update.
#[derive(Debug, Parser)]
#[command(
    name = "fedlora-aggregator",
    version,
    propagate_version = true,
    after_help = "Example:\n  fedlora-aggregator init --dir ~/operator --listen 0.0.0.0:4433 \\\n    --advertise fedlora.example.org --name consortium"
)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new federation: its directory, keys and certificate authority.
    #[command(
        after_help = "Example:\n  fedlora-aggregator init --dir ~/operator --listen 0.0.0.0:4433 \\\n    --advertise fedlora.example.org --name consortium"
    )]
    Init(directories::InitArgs),
    /// Print one invitation token for a member; hand it over by a private channel.
    #[command(after_help = "Example:\n  fedlora-aggregator invite --dir ~/operator hospital-a")]
    Invite(directories::InviteArgs),
    /// Print an invitation with which a member replaces its keys; the former ones serve until then.
    #[command(after_help = "Example:\n  fedlora-aggregator re-key --dir ~/operator hospital-a")]
    ReKey(directories::InviteArgs),
    /// Remove a member: its connections end at once, and its certificate is worth nothing. Withdraws
    /// the invitation of one that has not joined.
    #[command(after_help = "Example:\n  fedlora-aggregator remove --dir ~/operator hospital-a")]
    Remove(directories::RemoveArgs),
    /// Serve a federation: wait for the members of each run, go through its plan's rounds.
    #[command(
        after_help = "Example:\n  fedlora-aggregator serve --dir ~/operator\n  fedlora-aggregator serve --dir ~/operator --plan plan.toml"
    )]
    Serve(serve::ServeArgs),
    /// Submit a plan, and look after the runs.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora-aggregator run submit plan.toml --dir ~/operator"
    )]
    Run(runs::RunCommand),
    /// Show the members that have joined: names, key fingerprints, digest and words.
    #[command(after_help = "Example:\n  fedlora-aggregator roster --dir ~/operator --format json")]
    Roster(roster::RosterArgs),
    /// Print how far the run is.
    #[command(after_help = "Example:\n  fedlora-aggregator status --dir ~/operator --format json")]
    Status(status::StatusArgs),
    /// Show how far the run is as it changes, until it ends: redrawn on a terminal, a line at each
    /// change elsewhere, a document at each change with `--format json`.
    #[command(after_help = "Example:\n  fedlora-aggregator watch --dir ~/operator")]
    Watch(watch::WatchArgs),
    /// Look after the database behind the directory, where there is one.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora-aggregator store check --dir ~/operator"
    )]
    Store(store::StoreCommand),
    /// Recompute what was kept of a run; needs no keys.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora-aggregator audit replay --dir ~/operator --round 1"
    )]
    Audit(audit::AuditCommand),
    /// Look after the key of the certificate authority: seal it, sign what waits for it.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora-aggregator ca seal --dir ~/operator"
    )]
    Ca(ca::CaCommand),
    /// Acts that need two operators: who they are, what one proposes, and what another approves.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora-aggregator operator list --dir ~/operator"
    )]
    Operator(operator::OperatorCommand),
    /// Look after the published adapters of all runs: list, export, put an earlier one back, prune.
    #[command(
        subcommand,
        after_help = "Example:\n  fedlora-aggregator adapter list --dir ~/operator"
    )]
    Adapter(adapter::AdapterCommand),
    /// Show what `serve` would remove now of what runs published, by `[retention]` in aggregator.toml.
    /// Removes nothing.
    #[command(after_help = "Example:\n  fedlora-aggregator retention --dir ~/operator")]
    Retention(retention::RetentionArgs),
    #[command(flatten)]
    Documents(DocumentsCommand),
}

impl Program for Cli {
    const HOLDS_KEYS: bool = true;
    const LOG_LEVELS: LogLevels = LogLevels {
        quiet: "error",
        verbosity: &["info", "debug", "trace"],
        // The transport's internals would drown our own events.
        others: "warn",
    };

    fn shell_options(&self) -> (&GlobalOptions, Option<&DocumentsCommand>) {
        match &self.command {
            Command::Documents(documents) => (&self.global, Some(documents)),
            _ => (&self.global, None),
        }
    }

    fn interruption(&self) -> Interruption {
        let interruption = Interruption::default();
        match &self.command {
            Command::Serve(args) if args.is_for_ever() => Interruption {
                stopping: "stopping; a run that is not over goes on when `serve` is started again",
                ..interruption
            },
            Command::Serve(_) => Interruption {
                ended: "interrupted: the run is not finished, and its members are told when they \
                    reconnect",
                ..interruption
            },
            _ => interruption,
        }
    }

    async fn run(self, Shell { printer, stop }: Shell) -> Result<(), Failure> {
        match self.command {
            Command::Init(args) => directories::init(args, &printer),
            Command::Invite(args) => directories::invite(args, InvitationFor::NewMember, &printer),
            Command::ReKey(args) => directories::invite(args, InvitationFor::OtherKeys, &printer),
            Command::Remove(args) => directories::remove(&args, &printer),
            Command::Serve(args) => serve::run(&args, &printer, stop).await,
            Command::Run(command) => runs::run(command, &printer),
            Command::Roster(args) => roster::run(&args, &printer),
            Command::Status(args) => status::run(&args, &printer),
            Command::Watch(args) => watch::run(&args, &printer).await,
            Command::Store(command) => store::run(command, &printer),
            Command::Ca(command) => ca::run(&command, &printer),
            Command::Operator(command) => operator::run(&command, &printer),
            Command::Audit(command) => audit::run(&command, &printer),
            Command::Adapter(command) => adapter::run(&command, &printer),
            Command::Retention(args) => retention::run(&args, &printer),
            // The shell has run it.
            Command::Documents(_) => Ok(()),
        }
    }
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
