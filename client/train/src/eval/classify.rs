//! Classification by likelihood: the model chooses the label with the highest likelihood as the
//! response. The end of the turn is part of it, so that a label that is another's prefix has no
//! advantage. Unlike generated text, the choice is always one of the labels.

use std::ops::ControlFlow;

use fedlora_data::TextPipeline;

use crate::decode::sequence::Decoder;
use crate::eval::error::EvaluationError;
use crate::eval::label_tree::LabelTree;
use crate::eval::labels::LabelSet;
use crate::eval::metrics::{accuracy, macro_f1};
use crate::eval::question::Question;

/// Figures of a classification.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Classification {
    /// Number of records classified.
    pub records: usize,
    /// Number of records left out, too long with at least one of the labels.
    pub too_long: usize,
    /// Share of the records classified right, 0 to 1.
    pub accuracy: f64,
    /// Mean of the labels' F1, 0 to 1, over the labels that occur in the records or were chosen.
    pub macro_f1: f64,
}

/// Classifies every question. `decoder` must be empty. `progress` receives the number of
/// questions done after each one and may stop; the figures are then of those.
///
/// # Errors
/// A record that the template refuses, or records that all are longer than `max_tokens`.
pub fn classify(
    decoder: &Decoder,
    pipeline: &TextPipeline,
    questions: &[Question],
    labels: &LabelSet,
    max_tokens: usize,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Classification, EvaluationError> {
    let mut pairs = Vec::with_capacity(questions.len());
    let mut too_long = 0;
    let max_tokens = max_tokens.min(decoder.room());
    for (index, (question, &truth)) in questions.iter().zip(labels.truth()).enumerate() {
        match LabelTree::new(pipeline, question, labels, max_tokens)? {
            Some(tree) => pairs.push((truth, tree.likeliest(decoder)?)),
            None => too_long += 1,
        }
        if progress(index + 1).is_break() {
            break;
        }
    }
    if pairs.is_empty() {
        return Err(EvaluationError::TooLong {
            records: questions.len(),
            max_tokens,
        });
    }
    Ok(Classification {
        records: pairs.len(),
        too_long,
        accuracy: accuracy(&pairs),
        macro_f1: macro_f1(&pairs),
    })
}
