//! Local training and evaluation of a LoRA adapter on a frozen base. Step 2 of a round, and all of
//! a training without a federation. Nothing here knows the protocol or the network.

pub mod decode;
mod device;
mod engine;
pub mod eval;
mod memory;
mod run;
mod step;

#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder};
pub use device::{
    Cpu, Cuda, Device, DeviceError, Machine, check_device, free_memory, product_rate,
};
pub use engine::{Engine, ModelError};
pub use memory::{DoesNotFit, Plan, estimate};
pub use run::{
    Checkpoint, CheckpointError, Checkpoints, Difference, EvaluationRecord, Event, Figures, Found,
    Interval, Keep, MetricsError, Outcome, OutputError, OutputFolder, RunError, RunOptions,
    RunSpec, Scored, Setup, StepRecord, Summary, peak_memory, run,
};
pub use step::{
    AdamW, AdamWConfig, Decay, Evaluation, Position, Progress, Schedule, TrainError, TrainOptions,
    TrainReport, Trained, Trainer, TrainerState, clip_global_norm,
};
