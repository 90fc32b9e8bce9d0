//! Local training and evaluation of an adapter on a frozen base. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

mod device;
mod engine;
pub mod estimate;
mod evaluate;
mod machine;
mod optimizer;
mod options;
mod schedule;
mod speed;
mod trainer;

pub use device::{Device, DeviceError, check_device};
pub use engine::{Engine, ModelError};
pub use machine::{Cpu, Cuda, Machine};
pub use optimizer::{AdamW, AdamWConfig, clip_global_norm};
pub use options::{Evaluation, Progress, TrainError, TrainOptions, TrainReport, Trained};
pub use schedule::{Decay, Schedule};
pub use speed::product_rate;

#[cfg(test)]
mod tests;
