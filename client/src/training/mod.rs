//! Local training and evaluation of an adapter on a frozen base. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

mod device;
mod engine;
mod evaluate;
mod optimizer;
mod options;
mod order;
mod schedule;
mod trainer;

pub use device::{Device, DeviceError};
pub use engine::{Engine, ModelError};
pub use optimizer::{AdamW, AdamWConfig, clip_global_norm};
pub use options::{Evaluation, Progress, TrainError, TrainOptions, TrainReport, Trained};
pub use order::Position;
pub use schedule::{Decay, Schedule};
pub use trainer::{Trainer, TrainerState};

#[cfg(test)]
mod tests;
