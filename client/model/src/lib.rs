//! Llama-class language models with factored LoRA adapters, in burn.
//!
//! Training needs four things. [`BaseWeights`] reads the frozen base from a Hugging Face folder
//! or a GGUF file, one tensor at a time. [`Llama`] holds it on a device, dense or in fewer bits
//! ([`WeightKind`]). [`Lora`] holds an adapter beside it: each adapted projection computes
//! `x W^T + s (x A^T) B^T`. A [`Batch`] holds tokenised [`Example`]s, each with a loss mask that
//! selects its target tokens.
//!
//! [`loss_and_gradients`] gives the loss and the gradients by the adapter's factors. [`Passes`]
//! picks the implementation by backend: handwritten kernels on the CPU, autodiff elsewhere.
//! [`Llama::extend`] with a [`Cache`] computes a sequence token by token, for generation. [`ops`]
//! has the fused operations, [`gguf`] the container that GGUF tokenizers are read from too.
//!
//! The crate has no optimiser, tokenizer or sampling, and knows nothing of rounds, messages and
//! connections.
//!
//! # Example
//!
//! A model of random weights, an adapter of random factors, and one gradient:
//!
//! ```
//! use burn_flex::Flex;
//! use fedlora_adapter::{Adapter, Factors, LoraConfig, Target};
//! use fedlora_model::{
//!     ActivationCheckpointing, Architecture, BaseWeights, Batch, Example, Llama, LlamaConfig,
//!     Lora, Passes, SplitMix, loss_and_gradients,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = LlamaConfig {
//!     architecture: Architecture::Llama,
//!     vocab_size: 50,
//!     hidden_size: 16,
//!     intermediate_size: 32,
//!     num_hidden_layers: 2,
//!     num_attention_heads: 4,
//!     num_key_value_heads: 2,
//!     head_dim: 4,
//!     max_position_embeddings: 64,
//!     rms_norm_eps: 1e-5,
//!     rope_theta: 10_000.0,
//!     rope_scaling: None,
//!     sliding_window: None,
//!     qkv_bias: false,
//!     variation: Default::default(),
//!     tie_word_embeddings: true,
//!     bos_token_id: None,
//!     eos_token_id: None,
//! };
//! let mut random = SplitMix::new(1, 0);
//! let mut normal = |count: usize| -> Vec<f32> {
//!     (0..count).map(|_| (0.1 * random.normal()) as f32).collect()
//! };
//! let tensors = config.tensors();
//! let values = tensors.iter().map(|(_, shape)| normal(shape.iter().product())).collect();
//! let device = Default::default();
//! let model = Llama::<Flex>::new(&BaseWeights::new(config, values), &device)?;
//!
//! let lora = LoraConfig::new(4, 8.0, 0.0, [Target::Q, Target::V])?;
//! let layers = model.config().num_hidden_layers;
//! let layout = Adapter::layout_for(&lora, layers, |_, target| model.config().projection(target))?;
//! let factors = normal(layout.len());
//! let adapter = Adapter::new(lora, layout, factors)?;
//! let lora = Lora::from_adapter(&adapter, model.config(), &device)?;
//!
//! // The loss mask selects the last two tokens as targets.
//! let example = Example::new(vec![3, 1, 4, 1], vec![false, false, true, true]);
//! let batch = Batch::new([&example], 64);
//! let hidden = Flex::hidden(&model, Some(&lora), &batch);
//! assert_eq!(hidden.dims(), [3, 16]);
//! let checkpointing = ActivationCheckpointing::Off;
//! let found =
//!     loss_and_gradients(&model, &lora, Factors::Both, &mut None, &batch, checkpointing);
//! assert!(found.loss.into_scalar() > 0.0);
//! // A and B of two projections in two blocks.
//! assert_eq!(found.factors.len(), 8);
//! # Ok(())
//! # }
//! ```

mod batch;
mod cache;
mod checkpoint;
mod config;
mod cpu;
mod dropout;
mod example;
pub mod gguf;
mod gradients;
mod int4;
mod llama;
mod lora;
mod loss;
pub mod ops;
mod packed;
mod passes;
mod primitive;
mod random;
mod reuse;
mod rope;
mod sequences;
mod source;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod weights;

pub use batch::Batch;
pub use cache::Cache;
pub use config::{
    Activation, Architecture, Llama3Scaling, LlamaConfig, ModelConfigError, Multipliers,
    RopeScaling, Variation, YarnScaling,
};
pub use dropout::{Dropout, DropoutMask};
pub use example::Example;
pub use gguf::{GgufError, is_gguf};
pub use gradients::{ActivationCheckpointing, Gradients, Score};
pub use llama::{Llama, Weight};
pub use lora::{Lora, LoraError, LowRank};
pub use loss::loss_sum;
pub use packed::UNPACKED_AT_A_TIME;
pub use packed::{Packed, WeightKind, WeightKindError};
pub use passes::{Passes, loss_and_gradients};
pub use random::SplitMix;
pub use sequences::Sequences;
pub use source::WeightsError;
pub use weights::BaseWeights;
