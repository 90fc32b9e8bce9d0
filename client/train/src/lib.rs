//! Training, evaluation and decoding of LoRA adapters on a frozen base model.
//!
//! - [`Engine`] is a base model on a [`Device`]. It trains, evaluates and decodes.
//! - [`run()`] is a whole training on disk: held-out scores, early stopping, checkpoints from which
//!   it resumes bit for bit, metrics, and a PEFT adapter at its end.
//! - [`Trainer`] takes single optimizer steps, for loops of your own.
//! - [`eval`] classifies records and compares generated text with references.
//! - [`decode`] samples text and gives tokens' likelihoods.
//! - [`MemoryPlan`] estimates a training's memory before it begins.
//! - [`Machine`] and [`check_device`] tell what there is to train on.
//!
//! Errors say what is wrong. Where a caller can do something about it, the error's `remedy` gives
//! a [`Remedy`].
//!
//! # Example
//!
//! ```
//! use std::num::NonZeroUsize;
//! use std::ops::ControlFlow;
//!
//! use fedlora_adapter::{Factors, LoraConfig, Target};
//! use fedlora_model::{Architecture, Example, LlamaConfig, testing::random_weights};
//! use fedlora_train::decode::{Sampler, Sampling};
//! use fedlora_train::{Batches, Device, Engine, LearningRate, TrainOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A tiny base with random weights; `Engine::open` reads one from a Hugging Face folder.
//! let config = LlamaConfig {
//!     architecture: Architecture::Llama,
//!     vocab_size: 40,
//!     hidden_size: 16,
//!     intermediate_size: 24,
//!     num_hidden_layers: 2,
//!     num_attention_heads: 4,
//!     num_key_value_heads: 2,
//!     head_dim: 4,
//!     max_position_embeddings: 32,
//!     rms_norm_eps: 1e-5,
//!     rope_theta: 500_000.0,
//!     rope_scaling: None,
//!     sliding_window: None,
//!     qkv_bias: false,
//!     variation: Default::default(),
//!     tie_word_embeddings: true,
//!     bos_token_id: None,
//!     eos_token_id: None,
//! };
//! let engine = Engine::from_weights(&random_weights(config, 1), "tiny", &Device::Cpu)?;
//!
//! // Two steps on one example; its loss mask selects all but the first token.
//! let example = Example::new(vec![3, 1, 4, 1, 5], vec![false, true, true, true, true]);
//! let examples = [example];
//! let adapter = engine.init_adapter(&LoraConfig::new(4, 8.0, 0.0, Target::ALL)?, 0)?;
//! let options = TrainOptions {
//!     batches: Batches::Continuous {
//!         batch_size: NonZeroUsize::MIN,
//!         shuffle: false,
//!         steps: NonZeroUsize::new(2).ok_or("0 steps")?,
//!     },
//!     learning_rate: LearningRate::new(0.01)?,
//!     ..TrainOptions::default()
//! };
//! let mut watch = |_| ControlFlow::Continue(());
//! let trained = engine.train(&adapter, Factors::Both, &examples, &options, &mut watch)?;
//!
//! let before = engine.evaluate(None, &examples)?;
//! let after = engine.evaluate(Some(&trained.adapter), &examples)?;
//! assert!(after.loss < before.loss);
//!
//! // Three tokens after a prompt of two.
//! let mut decoder = engine.decoder(Some(&trained.adapter))?;
//! let mut sampler = Sampler::new(Sampling::Greedy);
//! let mut logits = decoder.extend(&[3, 1])?;
//! for _ in 0..3 {
//!     let token = sampler.next(&logits)?;
//!     logits = decoder.extend(&[token])?;
//! }
//! assert_eq!(decoder.len(), 5);
//! # Ok(())
//! # }
//! ```

pub mod decode;
mod device;
mod engine;
pub mod eval;
mod memory;
mod remedy;
mod run;
mod step;

#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder};
pub use device::{
    CpuInfo, CudaInfo, Device, DeviceError, Machine, check_device, free_memory, product_rate,
};
pub use engine::{Engine, ModelError};
pub use eval::{Evaluation, ExampleLoss};
pub use memory::{DoesNotFit, Estimate, MemoryPlan, WeightBytes, Workload};
pub use remedy::{MemorySaving, Remedy};
pub use run::{
    Checkpoint, CheckpointError, Checkpoints, Difference, EvaluationInterval, EvaluationRecord,
    Event, Figures, FoundCheckpoint, Interval, IntervalError, Keep, MetricsError, OutputError,
    OutputFolder, Patience, RunError, RunOptions, RunOutcome, RunSpec, Scored, Setup, StepRecord,
    Summary, peak_memory, run,
};
pub use step::{
    AdamW, AdamWConfig, Batches, Beside, Best, ClipNorm, Decay, DecayError, LearningRate, Length,
    MaxTokens, Position, Progress, Proximal, RateRatio, Schedule, Search, Span, TrainError,
    TrainOption, TrainOptions, TrainOptionsError, TrainReport, Trained, Trainer, TrainerState,
    Warmup, WarmupShare, WeightDecay, clip_global_norm,
};
