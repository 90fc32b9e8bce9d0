//! What a training takes, estimated before it begins: bytes of memory, and operations a token.
//! On the CPU, the bytes are within an eighth of the measured peak (`docs/PERFORMANCE.md`).
//!
//! Counts follow what the passes hold: weights once; an adapter with its gradients and
//! AdamW's two moments; for each block and row (token) what its backward pass needs; and the
//! logits of a part of the rows. Attention's scores are held for a chunk of queries at most.

use fedlora_adapter::Target;
use fedlora_model::ops::{CHUNK, queries_at_a_time};
use fedlora_model::{ActivationCheckpointing, LlamaConfig, UNPACKED_AT_A_TIME, WeightKind};
use serde::Serialize;

use crate::memory::workload::Workload;

/// Largest number of logits that are held at a time on the CPU.
const LOGITS: u64 = 8 << 20;
/// Bytes of an adapter's weight on the CPU: itself, its gradient and AdamW's two moments; twice
/// in the adapter that the training began with; and what a checkpoint takes to be written.
const ADAPTER: u64 = 16 + 8 + 16;
/// The same on a GPU: itself, its gradient, that scaled, and the moments.
const ADAPTER_ON_GPU: u64 = 20;
/// The program itself on the CPU, and for each token of the vocabulary, in the tokenizer.
const PROGRAM: (u64, u64) = (60 << 20, 1 << 10);
/// The backend's kernels and libraries on a GPU.
const PROGRAM_ON_GPU: u64 = 256 << 20;
/// Allocators hold one part in so many on top.
const SLACK: u64 = 20;
const SLACK_ON_GPU: u64 = 10;

/// Bytes and operations of a training. Field names are those of JSON output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    /// Number of the base's weights.
    pub parameters: u64,
    /// Number of the adapter's weights.
    pub adapter_parameters: u64,
    /// Bytes of the base's weights, by how they are held.
    pub weights: WeightBytes,
    /// Bytes of the adapter, its gradients and the optimizer's state.
    pub adapter: u64,
    /// Bytes kept for the backward pass.
    pub activations: u64,
    /// Bytes kept with activation checkpointing.
    pub activations_low: u64,
    /// Bytes that one block's passes and the loss take on top.
    pub working: u64,
    /// Bytes that scoring held-out examples takes between steps.
    pub scoring: u64,
    /// Bytes that 8-bit and 4-bit weights take while unpacked; 0 on the CPU.
    pub unpacked: u64,
    /// Bytes of the program and its libraries.
    pub program: u64,
    #[serde(skip)]
    autodiff: bool,
    /// Floating-point operations a token, forward and backward.
    pub operations: f64,
    /// The same with activation checkpointing.
    pub operations_low: f64,
}

/// Bytes of the base's weights, by how they are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WeightBytes {
    /// Bytes at 32 bits a weight.
    pub f32: u64,
    /// Bytes at 16 bits a weight.
    pub bf16: u64,
    /// Bytes at 8 bits a weight, with scales.
    pub q8: u64,
    /// Bytes at 4 bits a weight, with scales.
    pub q4: u64,
}

impl WeightBytes {
    /// Bytes of the weights held as `kind`.
    pub fn of(&self, kind: WeightKind) -> u64 {
        match kind {
            WeightKind::F32 => self.f32,
            WeightKind::Bf16 => self.bf16,
            WeightKind::Int8 => self.q8,
            WeightKind::Int4 => self.q4,
        }
    }
}

impl Estimate {
    /// Estimates a training of `workload` on a model of shape `config`.
    pub fn of(config: &LlamaConfig, workload: &Workload) -> Self {
        let tensors = config.tensors();
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        // Vectors stay as they are: they are few.
        let held = |kind: WeightKind| {
            let bytes = tensors.iter().map(|(_, shape)| match shape.len() {
                2 => kind.bytes(count(shape)) as u64,
                _ => WeightKind::F32.bytes(count(shape)) as u64,
            });
            bytes.sum::<u64>()
        };

        let blocks = config.num_hidden_layers as u64;
        let rank = workload.rank as u64;
        let pair = |target: &Target| {
            let (input, output) = config.projection(*target);
            rank * (input + output) as u64
        };
        let adapter_parameters = blocks * workload.targets.iter().map(pair).sum::<u64>();

        let rows = workload.rows as u64;
        let float = workload.float as u64;
        let hidden = config.hidden_size as u64;
        let queries = (config.num_attention_heads * config.head_dim) as u64;
        let keys = (config.num_key_value_heads * config.head_dim) as u64;
        let inner = config.intermediate_size as u64;
        // Input, q, k, v, context, each head's sum, what follows attention, gate, up, and the
        // narrow side of each pair.
        let narrow = rank * workload.targets.len() as u64;
        let heads = config.num_attention_heads as u64;
        let a_row = 2 * hidden + 2 * queries + 2 * keys + heads + 2 * inner + narrow;
        // Queries and keys before their norms.
        let a_row = match config.variation.qk_norm {
            true => a_row + queries + keys,
            false => a_row,
        };
        // What attention and the feed-forward part give before their norms.
        let a_row = match config.variation.output_norms {
            true => a_row + 2 * hidden,
            false => a_row,
        };
        // Autodiff also keeps the norms' outputs and what goes into the last projection.
        let more = if workload.autodiff {
            2 * hidden + inner
        } else {
            0
        };
        // And each mask with the input that it was put on; the CPU makes them anew.
        let masked = if workload.autodiff && workload.dropout {
            let inputs = workload.targets.iter();
            let inputs = inputs.map(|&target| config.projection(target).0 as u64);
            (4 + float) * inputs.sum::<u64>()
        } else {
            0
        };
        let block = rows * (float * (a_row + more) + masked);
        let vocab = config.vocab_size as u64;
        let logits_of = |rows: u64| {
            if workload.autodiff {
                // Logits of a chunk, their logarithms, and the gradient, beside a chunk of scores.
                let queries = queries_at_a_time(config.num_attention_heads, rows as usize);
                let scores = 4 * heads * rows * (queries as u64).min(rows);
                4 * 3 * vocab * (CHUNK as u64).min(rows) + 4 * scores
            } else {
                let a_thread = (LOGITS / vocab).clamp(32, 256) * vocab;
                4 * (rows * vocab).min(a_thread * workload.threads as u64)
            }
        };
        // One block's forward pass at a time, and the logits.
        let scored = workload.scored as u64;
        let scoring = scored * float * (a_row + more) + logits_of(scored);
        let matrices = tensors.iter().filter(|(_, shape)| shape.len() == 2);
        let largest = matrices.map(|(_, shape)| count(shape) as u64).max();

        let weights: u64 = Target::ALL
            .iter()
            .map(|&target| {
                let (input, output) = config.projection(target);
                (input * output) as u64
            })
            .sum::<u64>()
            * blocks;
        let head = (config.vocab_size * config.hidden_size) as f64 * workload.target_share;
        let attention = blocks as f64 * 4.0 * queries as f64 * workload.context;
        // A product is two operations a weight; backward, frozen weights take one more product,
        // trained ones two; attention five for its two.
        let forward = 2.0 * (weights + adapter_parameters) as f64 + attention;
        let backward = 2.0 * weights as f64 + 4.0 * adapter_parameters as f64 + 2.5 * attention;
        let operations = forward + backward + 4.0 * head;
        Self {
            parameters: tensors.iter().map(|(_, shape)| count(shape) as u64).sum(),
            adapter_parameters,
            weights: WeightBytes {
                f32: held(WeightKind::F32),
                bf16: held(WeightKind::Bf16),
                q8: held(WeightKind::Int8),
                q4: held(WeightKind::Int4),
            },
            adapter: adapter_parameters
                * if workload.autodiff {
                    ADAPTER_ON_GPU
                } else {
                    ADAPTER
                },
            activations: blocks * block,
            activations_low: blocks * float * rows * hidden + block,
            // The gradients of what a block kept, and of its input and output.
            working: block + 3 * float * rows * hidden + logits_of(rows),
            scoring,
            // The output layer or the embedding, one block's matrices, and a part on its way.
            unpacked: if workload.autodiff {
                let a_block = weights / blocks.max(1);
                float * (largest.unwrap_or(0) + a_block) + 16 * UNPACKED_AT_A_TIME as u64
            } else {
                0
            },
            program: if workload.autodiff {
                PROGRAM_ON_GPU
            } else {
                PROGRAM.0 + PROGRAM.1 * vocab
            },
            autodiff: workload.autodiff,
            operations,
            operations_low: operations + forward,
        }
    }

    /// Bytes of the whole training, with weights held as `kind`.
    pub fn total(&self, kind: WeightKind, checkpointing: ActivationCheckpointing) -> u64 {
        let packed = matches!(kind, WeightKind::Int8 | WeightKind::Int4);
        // Autodiff always checkpoints activations over packed weights.
        let activations = match checkpointing {
            ActivationCheckpointing::Off if !(packed && self.autodiff) => self.activations,
            _ => self.activations_low,
        };
        let unpacked = if packed { self.unpacked } else { 0 };
        let passes = (activations + self.working).max(self.scoring);
        let held = self.weights.of(kind) + self.adapter + passes + unpacked;
        let slack = if self.autodiff { SLACK_ON_GPU } else { SLACK };
        held + held / slack + self.program
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use fedlora_model::Variation;

    use super::*;

    fn embedded() -> LlamaConfig {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/base");
        LlamaConfig::load(&base).unwrap()
    }

    fn workload() -> Workload {
        Workload {
            rank: 8,
            targets: Target::ALL.to_vec(),
            rows: 1024,
            context: 128.0,
            target_share: 0.5,
            float: 4,
            autodiff: false,
            dropout: false,
            threads: 2,
            scored: 0,
        }
    }

    /// Llama 3 8B, whose numbers are well known.
    pub(crate) fn llama_3_8b() -> LlamaConfig {
        LlamaConfig {
            vocab_size: 128_256,
            hidden_size: 4096,
            intermediate_size: 14_336,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_dim: 128,
            max_position_embeddings: 8192,
            tie_word_embeddings: false,
            ..embedded()
        }
    }

    #[test]
    fn an_8b_model_has_its_known_size() {
        let workload = Workload {
            rank: 16,
            context: 0.0,
            target_share: 0.0,
            ..workload()
        };
        let found = Estimate::of(&llama_3_8b(), &workload);
        assert_eq!(found.parameters, 8_030_261_248);
        // What PEFT prints for rank 16 on all seven projections.
        assert_eq!(found.adapter_parameters, 41_943_040);
        assert_eq!(found.weights.bf16 / 1_000_000, 16_061);
        let bytes_a_weight = found.weights.q4 as f64 / found.parameters as f64;
        assert!(bytes_a_weight < 0.6, "{bytes_a_weight}");
        // Two products with each of the blocks' 6.98 G weights.
        assert!((found.operations / (4.0 * 6.98e9) - 1.0).abs() < 0.02);
    }

    /// Peaks of `fedlora train` on Linux, as the kernel showed them, of trainings of three steps
    /// with two threads.
    #[test]
    fn estimates_are_near_measured_peaks() {
        let smollm2 = LlamaConfig {
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            head_dim: 64,
            tie_word_embeddings: true,
            ..embedded()
        };
        let small = LlamaConfig {
            vocab_size: 4096,
            hidden_size: 288,
            intermediate_size: 768,
            num_hidden_layers: 6,
            num_attention_heads: 6,
            num_key_value_heads: 6,
            head_dim: 48,
            tie_word_embeddings: false,
            ..embedded()
        };
        let gemma3 = LlamaConfig {
            vocab_size: 8192,
            hidden_size: 640,
            intermediate_size: 2048,
            num_hidden_layers: 18,
            num_attention_heads: 4,
            num_key_value_heads: 1,
            head_dim: 256,
            tie_word_embeddings: true,
            variation: Variation {
                qk_norm: true,
                output_norms: true,
                ..Variation::default()
            },
            ..embedded()
        };
        use ActivationCheckpointing::{Off, PerBlock};
        use WeightKind::{Bf16, F32, Int4};
        for (config, rank, rows, kind, checkpointing, mebibytes) in [
            (&smollm2, 16, 1024, F32, Off, 1687),
            (&smollm2, 16, 1024, F32, PerBlock, 1032),
            (&smollm2, 16, 64, F32, Off, 886),
            (&smollm2, 16, 64, Int4, Off, 469),
            (&smollm2, 64, 512, F32, Off, 1874),
            (&smollm2, 16, 2048, Bf16, Off, 2118),
            (&gemma3, 16, 876, F32, Off, 1310),
            (&gemma3, 16, 876, F32, PerBlock, 719),
            (&small, 16, 1024, F32, Off, 225),
            (&small, 16, 4096, F32, Off, 487),
            (&small, 16, 16, F32, Off, 125),
        ] {
            let workload = Workload {
                rank,
                rows,
                ..workload()
            };
            let found = Estimate::of(config, &workload).total(kind, checkpointing);
            let ratio = found as f64 / (f64::from(mebibytes) * 1048576.0);
            assert!(
                (0.9..1.15).contains(&ratio),
                "rank {rank}, {rows} rows, {kind}, {checkpointing:?}: {ratio:.3} of the measured peak"
            );
        }
    }

    #[test]
    fn a_part_grows_with_what_it_depends_on() {
        let config = embedded();
        let base = Estimate::of(&config, &workload());
        let with = |change: fn(&mut Workload)| {
            let mut changed = workload();
            change(&mut changed);
            Estimate::of(&config, &changed)
        };
        let rows = with(|workload| workload.rows *= 2);
        assert_eq!(rows.activations, 2 * base.activations);
        assert_eq!((rows.adapter, rows.weights), (base.adapter, base.weights));
        let rank = with(|workload| workload.rank *= 2);
        assert_eq!(rank.adapter, 2 * base.adapter);
        assert!(with(|workload| workload.float = 2).activations * 2 == base.activations);
        assert!(base.activations_low < base.activations / 2);
        assert!(base.operations_low > base.operations * 1.3);
        let low = base.total(WeightKind::F32, ActivationCheckpointing::PerBlock);
        assert!(low < base.total(WeightKind::F32, ActivationCheckpointing::Off));
        assert!(low > base.weights.f32);
        assert_eq!(
            with(|workload| workload.dropout = true),
            base,
            "masks are not kept"
        );
        // Autodiff keeps them, and more besides.
        let gpu = with(|workload| workload.autodiff = true);
        let dropout = with(|workload| (workload.autodiff, workload.dropout) = (true, true));
        assert!(base.activations < gpu.activations && gpu.activations < dropout.activations);
        let normed = LlamaConfig {
            variation: Variation {
                output_norms: true,
                ..Variation::default()
            },
            ..config.clone()
        };
        let normed = Estimate::of(&normed, &workload());
        let more = 2 * 4 * 1024 * config.num_hidden_layers * config.hidden_size;
        assert_eq!(normed.activations, base.activations + more as u64);
        let packed = gpu.total(WeightKind::Int4, ActivationCheckpointing::Off);
        assert_eq!(
            packed,
            gpu.total(WeightKind::Int4, ActivationCheckpointing::PerBlock)
        );
        assert!(base.weights.q4 < base.weights.q8 && base.weights.q8 < base.weights.bf16);
    }
}
