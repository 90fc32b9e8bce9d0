//! What a step of a training computes, as far as its memory depends on it.

use fedlora_adapter::{LoraConfig, Target};
use fedlora_model::{Example, WeightKind};

use crate::device::choice::Device;
use crate::eval::held_out::POSITIONS;

/// What a step of a training computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Rank of the adapter.
    pub rank: usize,
    /// Projections that the adapter adapts.
    pub targets: Vec<Target>,
    /// Tokens of the largest batch.
    pub rows: usize,
    /// Mean number of keys that a token attends to.
    pub context: f64,
    /// Share of the tokens that are target tokens, 0 to 1.
    pub target_share: f64,
    /// Bytes of a weight as it is computed with, and of an activation: 4 for `f32`, 2 for `bf16`.
    pub float: usize,
    /// Whether autodiff computes the backward pass, as on a GPU; it keeps more activations.
    pub autodiff: bool,
    /// Whether dropout applies to the adapter's inputs.
    pub dropout: bool,
    /// Number of threads that compute.
    pub threads: usize,
    /// Tokens of the largest held-out batch; 0 where nothing is held out.
    pub scored: usize,
}

impl Workload {
    /// An adapter's training on a base held as `kind`, without examples yet.
    pub fn of(lora: &LoraConfig, device: Device, kind: WeightKind) -> Self {
        Self {
            rank: lora.rank(),
            targets: lora.targets().iter().copied().collect(),
            dropout: lora.dropout() > 0.0,
            ..Self::on(device, kind)
        }
    }

    /// The same on a base held as `kind`.
    pub(crate) fn with_kind(&self, device: Device, kind: WeightKind) -> Self {
        Self {
            float: Self::on(device, kind).float,
            ..self.clone()
        }
    }

    fn on(device: Device, kind: WeightKind) -> Self {
        let gpu = matches!(device, Device::Cuda(_));
        Self {
            rank: 0,
            targets: Vec::new(),
            rows: 0,
            context: 0.0,
            target_share: 0.0,
            float: if gpu && kind != WeightKind::F32 { 2 } else { 4 },
            autodiff: gpu,
            dropout: false,
            threads: rayon::current_num_threads(),
            scored: 0,
        }
    }

    /// Adds held-out examples, each cut at `max_tokens`.
    pub fn with_held_out(self, examples: &[Example], max_tokens: usize) -> Self {
        let lengths = examples.iter().map(|example| example.tokens().len());
        let lengths = lengths.map(|length| length.min(max_tokens));
        let longest = lengths.clone().max().unwrap_or(0);
        Self {
            scored: self
                .scored
                .max(lengths.sum::<usize>().min(POSITIONS.max(longest))),
            ..self
        }
    }

    /// Adds examples to train on, each cut at `max_tokens`, for the largest possible batch of
    /// `batch` of them.
    pub fn with_examples(self, examples: &[Example], batch: usize, max_tokens: usize) -> Self {
        let mut lengths: Vec<_> = examples
            .iter()
            .map(|example| example.tokens().len().min(max_tokens))
            .collect();
        lengths.sort_unstable_by_key(|&length| std::cmp::Reverse(length));
        let tokens: usize = lengths.iter().sum();
        let targets: usize = examples.iter().map(Example::target_tokens).sum();
        let pairs: f64 = lengths
            .iter()
            .map(|&n| n as f64 * (n as f64 + 1.0) / 2.0)
            .sum();
        Self {
            rows: lengths.iter().take(batch).sum(),
            context: pairs / tokens.max(1) as f64,
            target_share: targets as f64 / tokens.max(1) as f64,
            ..self
        }
    }
}
