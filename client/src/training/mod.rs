//! Local training and evaluation of an adapter on a frozen base. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

mod decode;
mod device;
mod engine;
mod evaluate;
mod optimizer;
mod options;
mod schedule;
mod score;
mod trainer;

pub use decode::{DecodeError, Decoder};
pub use device::{Device, DeviceError};
pub use engine::{Engine, ModelError};
pub use optimizer::{AdamW, AdamWConfig, clip_global_norm};
pub use options::{Evaluation, Progress, TrainError, TrainOptions, TrainReport, Trained};
pub use schedule::{Decay, Schedule};

#[cfg(test)]
mod tests;
