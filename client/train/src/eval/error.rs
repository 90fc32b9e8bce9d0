//! Why an evaluation is impossible.

use fedlora_data::tokenizer::TokenizerError;

use crate::decode::generate::GenerateError;
use crate::decode::sequence::DecodeError;
use crate::eval::labels::LabelError;
use crate::eval::question::QuestionError;
use crate::remedy::Remedy;
use crate::step::error::TrainError;

/// An evaluation that is impossible.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// A record has no response to compare with.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// The responses form no closed set of labels.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The template or the tokenizer refuses a record.
    #[error("{place}: {source}")]
    Refused {
        /// File and line of the record.
        place: String,
        /// Why it was refused.
        source: TokenizerError,
    },
    /// Every record was left out as too long.
    #[error(
        "none of {records} records fits into {max_tokens} tokens with its response: allow more \
         tokens, or shorten the prompts"
    )]
    TooLong {
        /// Records given.
        records: usize,
        /// The limit in tokens, prompt and response together.
        max_tokens: usize,
    },
    /// The adapter was made for another model, or the loss is not finite.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The model has no room for the tokens.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A response cannot be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl EvaluationError {
    /// What a caller can change so that the evaluation is possible.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Question(error) => error.remedy(),
            Self::Labels(error) => error.remedy(),
            _ => None,
        }
    }
}
