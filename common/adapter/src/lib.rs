//! The adapter as all sides see it: which tensors in which order, their values, the change
//! a member made to them, and the PEFT files on disk.
//!
//! Steps 3, 4 and 10 of the round work on these types. Nothing here knows a model or a
//! tensor library, so that the aggregator can depend on it.

mod config;
mod cores;
mod delta;
mod init;
mod joined;
mod layout;
mod patterns;
pub mod peft;
pub mod tensors;
mod values;

pub use config::{ConfigError, Factor, Factors, LoraConfig, ProjectionTensor, Target};
pub use delta::{Delta, DeltaError};
pub use layout::{Layout, LayoutError, TensorSpec};
pub use values::{Adapter, AdapterError};
