//! What a run leaves.

use std::path::PathBuf;

use fedlora_common::digest::Digest;
use serde::Serialize;

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunOutcome {
    /// The run is done, and its adapter written.
    Finished(Summary),
    /// The caller stopped the run, and its checkpoint is written.
    Interrupted {
        /// Optimizer steps done.
        step: usize,
        /// Optimizer steps of the whole run.
        steps: usize,
    },
}

/// The result of a finished run. Field names are those of JSON output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Optimizer steps done.
    pub steps: usize,
    /// The step after which the kept adapter was saved.
    pub kept_step: usize,
    /// Whether early stopping ended it before its last step.
    pub stopped_early: bool,
    /// Mean training loss over the whole run, in nats a target token.
    pub train_loss: f64,
    /// The last step's mean loss in nats a target token.
    pub last_loss: f64,
    /// The kept adapter's held-out loss in nats a target token, if it was scored.
    pub eval_loss: Option<f64>,
    /// Tokens computed, repetitions included.
    pub tokens: u64,
    /// Target tokens among them.
    #[serde(rename = "counted_tokens")]
    pub target_tokens: u64,
    /// Tokens a second of the optimizer steps.
    pub tokens_per_second: f64,
    /// Seconds in all, interruptions excluded.
    pub seconds: f64,
    /// Peak of the device's memory in bytes: this process's on the CPU, and on a GPU as
    /// [`Engine::device_memory`](crate::Engine::device_memory) counts it. `None` where the system
    /// does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Digest of the adapter's configuration and values.
    pub adapter_digest: Digest,
    /// The folder that holds the adapter.
    pub adapter_dir: PathBuf,
}

/// Peak of this process's resident memory in bytes, from Linux's `/proc`; `None` elsewhere.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
