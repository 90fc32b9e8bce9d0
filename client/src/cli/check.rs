//! `fedlora check`.

use super::Failure;
use super::args::Format;

/// What it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The base model: a Hugging Face folder, a GGUF file or a name on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    pub(crate) base: String,
}

/// Runs the command.
pub(super) fn run(_args: &CheckArgs, _format: Format, _quiet: bool) -> Result<(), Failure> {
    todo!()
}
