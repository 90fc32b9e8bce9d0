//! Sequences that grow at their end: tokens' likelihoods, and text generated from a prompt.

mod generate;
mod sampling;
pub(crate) mod score;
pub(crate) mod sequence;
mod stops;

pub use generate::{Finish, GenerateError, GenerateOptions, Generated, generate};
pub use sampling::{Sampler, Sampling, SamplingError};
pub use sequence::{DecodeError, Decoder};
pub use stops::{StopText, StopTextError};
