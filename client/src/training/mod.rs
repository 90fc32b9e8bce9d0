//! Local training and evaluation of an adapter on a frozen base. Step 2 of the round.
//!
//! Nothing here knows the wire, the rounds or the transport.

mod checkpoint;
mod decode;
mod device;
mod engine;
pub mod estimate;
mod evaluate;
mod fit;
mod machine;
mod metrics;
mod optimizer;
mod options;
mod order;
mod output;
mod run;
mod schedule;
mod score;
mod spec;
mod speed;
mod tensorboard;
mod trainer;

pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, Figures, Found, Scored};

pub use decode::{DecodeError, Decoder};
pub use device::{Device, DeviceError, check_device, free_memory};
pub use engine::{Engine, ModelError};
pub use fit::{DoesNotFit, Plan};
pub use machine::{Cpu, Cuda, Machine};
pub use metrics::{EvaluationRecord, MetricsError, StepRecord};
pub use optimizer::{AdamW, AdamWConfig, clip_global_norm};
pub use options::{Evaluation, Progress, TrainError, TrainOptions, TrainReport, Trained};
pub use order::Position;
pub use output::{OutputError, OutputFolder};
pub use run::{
    Event, Interval, Keep, Outcome, RunError, RunOptions, Setup, Summary, peak_memory, run,
};
pub use schedule::{Decay, Schedule};
pub use spec::{Difference, RunSpec};
pub use speed::product_rate;
pub use trainer::{Trainer, TrainerState};

#[cfg(test)]
mod tests;
