//! A Llama model in burn: its configuration and weights as Hugging Face folders and GGUF files
//! hold them, the forward pass with factored LoRA, and the loss. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

mod checkpoint;
mod config;
pub(crate) mod gguf;
mod gradients;
mod llama;
mod lora;
mod loss;
pub mod ops;
mod random;
mod rope;
mod weights;

pub use config::{Architecture, Llama3Scaling, LlamaConfig, ModelConfigError};
pub use gguf::{GgufError, is_gguf};
pub use gradients::{Gradients, Memory, loss_and_gradients};
pub use llama::{Batch, Llama};
pub use lora::{Dropout, Lora, LoraError, LowRank};
pub use loss::loss_sum;
pub use random::SplitMix;
pub use weights::{BaseWeights, WeightsError};
