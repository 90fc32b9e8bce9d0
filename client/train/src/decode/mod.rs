//! Decoding with cached keys and values: tokens' likelihoods, and text generated from a prompt.

pub(crate) mod generate;
pub(crate) mod sampling;
pub(crate) mod score;
pub(crate) mod sequence;
mod stops;

pub use generate::{Finish, GenerateError, GenerateOptions, Generated, generate};
pub use sampling::{Sampler, Sampling, SamplingError};
pub use sequence::{DecodeError, Decoder};
pub use stops::{StopText, StopTextError};
