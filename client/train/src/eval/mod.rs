//! How well a model answers: [`mod@classify`] where the responses are of a closed set of
//! [`labels`], [`mod@respond`] where they are free text. The loss is the matter of
//! [`crate::Engine::evaluate`].
//!
//! Sees private records: nothing here may use the wire, round or transport modules, and no
//! error or `Debug` shows a record's text.

pub mod classify;
pub(crate) mod held_out;
pub mod labels;
pub mod metrics;
pub mod question;
pub mod respond;

pub use classify::{Classification, classify};
pub use labels::{LabelError, LabelSet};
pub use question::{Question, QuestionError};
pub use respond::{Responses, respond};

use crate::decode::GenerateError;
use crate::{DecodeError, TrainError};
use fedlora_data::tokenizer::TokenizerError;

/// An evaluation that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The records do not ask for it.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The responses are not of a closed set.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The template or the tokenizer refuses a record.
    #[error("{place}: {source}")]
    Refused {
        /// Which record.
        place: String,
        /// Why.
        source: TokenizerError,
    },
    /// Every record was left out.
    #[error(
        "none of {records} records fits into {max_tokens} tokens with its response: allow longer \
         ones, or shorten the prompts"
    )]
    TooLong {
        /// Records given.
        records: usize,
        /// The limit.
        max_tokens: usize,
    },
    /// The adapter does not fit.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The model cannot take the tokens.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No response can be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

#[cfg(test)]
mod tests;
