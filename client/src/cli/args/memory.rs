//! How much memory training may take.

use clap::ValueEnum;
use fedlora_model::ActivationCheckpointing;

/// What is kept for the backward pass.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct MemoryArg {
    /// Memory for activations; low is activation checkpointing: less memory, more time.
    #[arg(long, value_enum, default_value_t = MemoryKind::Normal, help_heading = "Machine")]
    memory: MemoryKind,
}

/// The memory of a command that trains.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    activations: MemoryArg,
    /// Begin even where the computed memory is more than the device has.
    #[arg(long, help_heading = "Machine")]
    pub(crate) ignore_memory: bool,
}

impl MemoryArg {
    /// What is kept for the backward pass.
    pub(crate) fn resolve(self) -> ActivationCheckpointing {
        match self.memory {
            MemoryKind::Normal => ActivationCheckpointing::Off,
            MemoryKind::Low => ActivationCheckpointing::PerBlock,
        }
    }
}

impl MemoryArgs {
    /// What is kept for the backward pass.
    pub(crate) fn resolve(self) -> ActivationCheckpointing {
        self.activations.resolve()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MemoryKind {
    /// Keep all activations.
    Normal,
    /// Keep each block's input only, and recompute the rest in the backward pass.
    Low,
}
