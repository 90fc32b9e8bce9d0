//! How well a model answers: [`mod@classify`] for responses from a closed set of [`labels`],
//! [`mod@respond`] for free text. [`Engine::evaluate`](crate::Engine::evaluate) gives the loss.
//!
//! This module reads private records: no error and no `Debug` shows a record's text.

pub mod classify;
pub(crate) mod error;
pub(crate) mod held_out;
pub mod label_tree;
pub mod labels;
pub mod metrics;
pub mod question;
pub mod respond;

pub use classify::{Classification, classify};
pub use error::EvaluationError;
pub use held_out::{Evaluation, ExampleLoss};
pub use label_tree::LabelTree;
pub use labels::{LabelError, LabelSet};
pub use question::{Question, QuestionError};
pub use respond::{Responses, respond};

#[cfg(test)]
mod tests;
