//! Why a training or an evaluation is impossible.

use fedlora_model::LoraError;

use crate::step::options::TrainOptionsError;

/// A training or an evaluation that is impossible.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// An option out of range.
    #[error(transparent)]
    Options(#[from] TrainOptionsError),
    /// A sequence that the model has no positions for.
    #[error("{got} tokens given: the model takes from 1 to {positions}")]
    Positions {
        /// Tokens given.
        got: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// No example has a target token.
    #[error(
        "none of the {examples} examples has a target token among its first {max_tokens} tokens: \
         give data with responses, or a larger token limit"
    )]
    NoTokens {
        /// Examples given.
        examples: usize,
        /// Tokens at which an example is cut.
        max_tokens: usize,
    },
    /// A token outside the model's vocabulary.
    #[error(
        "an example holds token {got}, the model's vocabulary has {vocab}: is the tokenizer this \
         model's?"
    )]
    Token {
        /// The token's id.
        got: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// The adapter was made for another model.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// A frozen adapter that cannot stand beside the trained one.
    #[error(
        "the frozen adapter has another configuration than the trained one, or their ranks together \
         are more than an adapter has"
    )]
    Beside,
    /// A saved state that belongs to another training, or that no training reaches.
    #[error("the training cannot resume from this state: {what}")]
    State {
        /// What does not match, as a clause.
        what: &'static str,
    },
    /// A held-out loss that is NaN or infinite.
    #[error("the loss is not a finite number: the base or the adapter is broken")]
    NotFinite,
    /// A training loss, gradient or parameter that became NaN or infinite.
    #[error("training diverged at step {step}: use a lower learning rate or a smaller clip norm")]
    Diverged {
        /// The step, from 1.
        step: usize,
    },
}
