//! The Llama architecture in burn, with factored LoRA.
