//! The adapter: the shape of a new one, or the folder of one to read.

use std::path::PathBuf;

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

/// The adapter of a command that reads one.
#[derive(Debug, clap::Args)]
pub(crate) struct AdapterArg {
    /// A PEFT adapter made for the base.
    #[arg(long = "adapter", value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

impl AdapterArg {
    /// The folder as a command's document holds it.
    pub(crate) fn name(&self) -> Option<String> {
        let folder = self.folder.as_ref();
        folder.map(|folder| folder.display().to_string())
    }
}
