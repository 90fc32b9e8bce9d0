//! The shape of an adapter.

use fedlora_adapter::Target;

/// Rank and adapted layers.
#[derive(Debug, clap::Args)]
pub(crate) struct ShapeArgs {
    /// Rank of the adapter, 1 to 256.
    #[arg(long, default_value_t = 16, help_heading = "Adapter")]
    pub(crate) rank: usize,
    /// Adapted layers.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "q,k,v,o,gate,up,down",
        help_heading = "Adapter"
    )]
    pub(crate) targets: Vec<Target>,
}
