//! What a caller can change after an error.
//!
//! An error's text says what is wrong. What would help depends on who called: a command line names
//! its flags, another program its own settings. Errors of this crate therefore have a method
//! `remedy`, and the caller words the [`Remedy`].

use fedlora_model::WeightKind;

/// A change that makes possible what an error refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Write to another folder, a new or an empty one.
    OtherOutputFolder,
    /// Write to another folder, or restart: begin anew, which removes the finished run.
    OtherOutputFolderOrRestart,
    /// Give the adapter, data and options with which the unfinished run began; or write to
    /// another folder; or restart, which removes the unfinished run.
    SameSettingsOrRestart,
    /// Restart: begin anew, which removes the checkpoints.
    Restart,
    /// Start the same run again: it resumes from the last whole checkpoint.
    Resume,
    /// Use a build with the feature `cuda`, or train on the CPU.
    BuildWithCuda,
    /// Install the NVIDIA driver and a part of CUDA, or train on the CPU.
    InstallCuda {
        /// The part that holds the missing library, such as `runtime compiler (NVRTC)`.
        part: &'static str,
    },
    /// Choose a GPU that the driver has; `nvidia-smi -L` lists them.
    OtherGpu,
    /// Take less memory, or ignore the estimate.
    LessMemory {
        /// Changes that fit, each by itself. Empty where no combination of them does.
        savings: Vec<MemorySaving>,
        /// Whether cutting the examples at fewer tokens is up to the caller, too.
        shorter_examples: bool,
    },
    /// Name the labels, at least two different ones, of which each record has one.
    NameLabels,
    /// Evaluate the loss alone, which needs no response.
    LossOnly,
}

/// Settings that together make a run fit into memory. Those that are `None` or `false` stay as
/// they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySaving {
    /// Whether to use activation checkpointing,
    /// [`PerBlock`](fedlora_model::ActivationCheckpointing::PerBlock).
    pub activation_checkpointing: bool,
    /// How to hold the base's weights.
    pub base_kind: Option<WeightKind>,
    /// Examples of a batch.
    pub batch: Option<usize>,
    /// Bytes that the run then takes.
    pub needed: u64,
}
