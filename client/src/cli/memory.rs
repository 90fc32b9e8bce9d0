//! The memory of a training, as `check` reports it and `train` refuses it.

use fedlora_adapter::LoraConfig;
use fedlora_model::{ActivationCheckpointing, Example, LlamaConfig};
use fedlora_train::{MemoryPlan, Workload};

use super::args::ModelSpec;

/// What a training computes, apart from the model.
#[derive(Debug, Clone, Copy)]
pub(super) struct TrainingWork<'a> {
    pub(super) lora: &'a LoraConfig,
    pub(super) training: &'a [Example],
    pub(super) held_out: &'a [Example],
    /// Examples of a batch.
    pub(super) batch: usize,
    /// Tokens at which examples are cut.
    pub(super) seq: usize,
    /// Whether each batch is filled up to `batch` times `seq` tokens.
    pub(super) packed: bool,
}

/// The plan of a training on the device of `model`, whose shape is `config`.
pub(super) fn memory_plan<'a>(
    model: &ModelSpec,
    config: &'a LlamaConfig,
    work: TrainingWork<'_>,
    checkpointing: ActivationCheckpointing,
) -> MemoryPlan<'a> {
    let mut workload = Workload::of(work.lora, model.device, model.kind)
        .with_examples(work.training, work.batch, work.seq)
        .with_held_out(work.held_out, work.seq);
    if work.packed {
        let lengths = work.training.iter().map(|example| example.tokens().len());
        workload.rows = work.batch.saturating_mul(work.seq).min(lengths.sum());
    }
    MemoryPlan {
        config,
        device: model.device,
        workload,
        batch: Some(work.batch),
        kind: model.kind,
        checkpointing,
    }
}
