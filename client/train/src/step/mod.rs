//! One optimizer step at a time: batches in order, gradients, clipping, AdamW, learning rate. All that
//! the next step depends on can be saved and restored.

pub(crate) mod optimizer;
pub(crate) mod options;
pub(crate) mod order;
pub(crate) mod schedule;
pub(crate) mod trainer;

pub use optimizer::{AdamW, AdamWConfig, clip_global_norm};
pub use options::{Evaluation, Progress, TrainError, TrainOptions, TrainReport, Trained};
pub use order::Position;
pub use schedule::{Decay, Schedule};
pub use trainer::{Trainer, TrainerState};
