//! The options of `fedlora check`.

use fedlora_adapter::{ConfigError, LoraConfig};
use fedlora_shell::values;

use crate::cli::args::{DataArgs, MemoryArg, ModelArgs, ShapeArgs};

/// Options of `fedlora check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) data: DataArgs,
    /// Tokens at which an example is cut [default: 1024, or as many as the base takes].
    #[arg(long, value_name = "TOKENS", value_parser = values::sequence_length)]
    pub(super) seq: Option<usize>,
    /// Examples computed at a time.
    #[arg(long, default_value_t = 4, value_parser = values::positive)]
    pub(super) batch: usize,
    #[command(flatten)]
    pub(super) shape: ShapeArgs,
    #[command(flatten)]
    pub(super) memory: MemoryArg,
    /// Show this many of the first examples, with their target tokens marked.
    #[arg(long, default_value_t = 3, value_name = "EXAMPLES")]
    pub(super) show: usize,
    /// Load the model and measure the time of a few steps on made-up tokens.
    #[arg(long)]
    pub(super) probe: bool,
}

impl CheckArgs {
    /// The shape of the adapter, with the default alpha.
    pub(super) fn lora(&self) -> Result<LoraConfig, ConfigError> {
        let rank = self.shape.rank;
        LoraConfig::new(rank, 2.0 * rank as f64, 0.0, self.shape.targets.clone())
    }
}
