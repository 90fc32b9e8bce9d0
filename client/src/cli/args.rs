//! The arguments, as `clap` sees them.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use fedlora_common::digest::Digest;
use fedlora_model::WeightKind;
use fedlora_protocol::wire::token::InviteToken;
use fedlora_train::Device;

use super::check::CheckArgs;
use super::eval::EvalArgs;
use super::generate::GenerateArgs;
use super::train_args::{MemoryKind, TrainArgs};

/// A consortium member's program: joins a federation and fine-tunes with it. Records, deltas
/// and keys never leave this machine; only masked updates do.
#[derive(Debug, Parser)]
#[command(name = "fedlora", version, propagate_version = true)]
pub(crate) struct Args {
    /// Errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// More detail; again for even more.
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
    /// Join a federation: make keys here, get a certificate, pin the authority.
    Join {
        /// The invitation, as the operator printed it.
        token: InviteToken,
        /// The member's directory, made anew.
        #[arg(long, env = "FEDLORA_DIR")]
        dir: PathBuf,
    },
    /// Take part in the federation's run until it ends; write the final adapter.
    Run(RunArgs),
    /// Show what a training would use: the records as the model sees them, memory, device.
    Check(CheckArgs),
    /// Fine-tune an adapter on this machine, without a federation.
    Train(Box<TrainArgs>),
    /// Score a base model or an adapter on records.
    Eval(EvalArgs),
    /// Continue a prompt.
    Generate(GenerateArgs),
}

/// What a run needs.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The member's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    pub(crate) dir: PathBuf,
    /// The base model: a Hugging Face folder, a GGUF file or a name on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    pub(crate) base: String,
    /// Private records: JSON Lines, a JSON array or Parquet, or a folder of them; may be given
    /// several times.
    #[arg(long, required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Held-out records; without, a tenth of --data is held out.
    #[arg(long)]
    pub(crate) held_out: Vec<PathBuf>,
    /// Where to train: cpu or cuda:N.
    #[arg(long, env = "FEDLORA_DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// How the frozen base is held in memory: f32, bf16, q8 or q4 [default: f32, bf16 on a GPU].
    #[arg(long, value_name = "KIND")]
    pub(crate) base_dtype: Option<WeightKind>,
    /// What is kept for the backward pass: low computes each block twice and takes less memory.
    #[arg(long, value_enum, default_value_t = MemoryKind::Normal)]
    pub(crate) memory: MemoryKind,
    /// Take part even where the memory is computed not to be enough.
    #[arg(long)]
    pub(crate) ignore_memory: bool,
    /// Threads that compute [default: one a processor].
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Seed of the order of examples; by default a random one.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Agree to a changed roster, by its digest.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) accept_roster: Option<Digest>,
    /// Seconds to go on trying while the aggregator cannot be reached.
    #[arg(long, default_value_t = 300)]
    pub(crate) patience: u64,
}
