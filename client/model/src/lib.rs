//! A Llama model in burn: its configuration and weights as Hugging Face folders and GGUF files
//! hold them, the forward pass with factored LoRA, and the loss. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

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
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod weights;

pub use batch::Batch;
pub use cache::Cache;
pub use config::{Architecture, Llama3Scaling, LlamaConfig, ModelConfigError};
pub use dropout::{Dropout, DropoutMask};
pub use example::Example;
pub use gguf::{GgufError, is_gguf};
pub use gradients::{Gradients, Memory, Score};
pub use llama::{Llama, Weight};
pub use lora::{Lora, LoraError, LowRank};
pub use loss::loss_sum;
pub use packed::UNPACKED_AT_A_TIME;
pub use packed::{Packed, WeightKind, WeightKindError};
pub use passes::{Passes, loss_and_gradients};
pub use random::SplitMix;
pub use sequences::Sequences;
pub use weights::{BaseWeights, WeightsError};
