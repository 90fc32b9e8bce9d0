//! A Llama model in burn: its configuration and weights as Hugging Face folders hold them,
//! the forward pass with factored LoRA, and the loss. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

mod config;
mod llama;
mod lora;
mod loss;
pub mod ops;
mod random;
mod rope;
mod weights;

pub use config::{LlamaConfig, ModelConfigError};
pub use llama::{Batch, Llama};
pub use lora::{Dropout, Lora, LoraError, LowRank};
pub use loss::loss_sum;
pub use random::SplitMix;
pub use weights::{BaseWeights, WeightsError};
