//! One optimizer step at a time: batches in order, gradients, clipping, AdamW, learning rate.
//! All that the next step depends on can be saved and restored.

pub(crate) mod beside;
pub(crate) mod best;
pub(crate) mod cores;
pub(crate) mod decay;
pub(crate) mod error;
pub(crate) mod examples;
pub(crate) mod model_trainer;
pub(crate) mod optimizer;
pub(crate) mod options;
pub(crate) mod order;
pub(crate) mod proximal;
pub(crate) mod report;
pub(crate) mod schedule;
pub(crate) mod trainer;

pub use beside::Beside;
pub use best::{Best, Search};
pub use decay::{Decay, DecayError};
pub use error::TrainError;
pub use optimizer::{AdamW, AdamWConfig, clip_global_norm};
pub use options::{
    Batches, ClipNorm, LearningRate, Length, MaxTokens, Proximal, RateRatio, Span, TrainOption,
    TrainOptions, TrainOptionsError, Warmup, WarmupShare, WeightDecay,
};
pub use order::Position;
pub use report::{Progress, TrainReport, Trained};
pub use schedule::Schedule;
pub use trainer::{Trainer, TrainerState};
