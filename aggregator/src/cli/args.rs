//! The arguments, as `clap` sees them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use fedlora_protocol::ids::MemberName;

/// The operator's program of a federation: invites members, coordinates rounds, publishes the
/// merged adapter. It never sees a single member's update.
#[derive(Debug, Parser)]
#[command(name = "fedlora-aggregator", version, propagate_version = true)]
pub(crate) struct Args {
    /// Errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// More detail; twice for even more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How to print data.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new federation: its directory, keys and certificate authority.
    Init {
        /// The operator's directory.
        #[arg(long, env = "FEDLORA_DIR")]
        dir: PathBuf,
        /// Where members connect (UDP).
        #[arg(long, env = "FEDLORA_LISTEN")]
        listen: SocketAddr,
        /// Where invited members join (UDP); the port above --listen's by default.
        #[arg(long, env = "FEDLORA_JOIN_LISTEN")]
        join_listen: Option<SocketAddr>,
        /// Host and port by which members reach --listen, where it differs.
        #[arg(long, env = "FEDLORA_ADVERTISE")]
        advertise: Option<String>,
        /// Host and port by which members reach --join-listen, where it differs.
        #[arg(long, env = "FEDLORA_JOIN_ADVERTISE")]
        join_advertise: Option<String>,
        /// The federation's name.
        #[arg(long)]
        name: String,
    },
    /// Print one invitation token for a member; hand it over by a private channel.
    Invite {
        /// The operator's directory.
        #[arg(long, env = "FEDLORA_DIR")]
        dir: PathBuf,
        /// The member's name: a-z, 0-9 and '-'.
        member: MemberName,
        /// Hours until it expires.
        #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=8760))]
        hours: u64,
    },
    /// Run a plan: wait for the members, go through its rounds, end.
    Serve {
        /// The operator's directory.
        #[arg(long, env = "FEDLORA_DIR")]
        dir: PathBuf,
        /// The run plan (TOML).
        #[arg(long)]
        plan: PathBuf,
    },
    /// Print how far the run is.
    Status {
        /// The operator's directory.
        #[arg(long, env = "FEDLORA_DIR")]
        dir: PathBuf,
    },
}
