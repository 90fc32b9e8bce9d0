//! Classification by likelihood: the model chooses the label with the highest likelihood as the
//! response. The end of the turn is part of it, so that a label that is another's prefix has no
//! advantage. Unlike generated text, the choice is always one of the labels.

use std::ops::ControlFlow;

use fedlora_data::TextPipeline;
use fedlora_model::Example;

use crate::decode::sequence::{DecodeError, Decoder};
use crate::eval::error::EvaluationError;
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
    let max_tokens = max_tokens.min(decoder.room());
    let mut pairs = Vec::with_capacity(questions.len());
    let mut too_long = 0;
    for (index, (question, &truth)) in questions.iter().zip(labels.truth()).enumerate() {
        let candidates: Vec<Example> = labels
            .labels()
            .iter()
            .map(|label| pipeline.chat(&question.answered(label)))
            .collect::<Result<_, _>>()
            .map_err(|source| EvaluationError::Refused {
                place: question.place().to_owned(),
                source,
            })?;
        if candidates.iter().any(|c| c.tokens().len() > max_tokens) {
            too_long += 1;
        } else {
            pairs.push((truth, likeliest(decoder, &candidates)?));
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

/// The index of the candidate whose target tokens have the highest likelihood, the first of
/// equals. The model computes the common prefix once.
fn likeliest(decoder: &Decoder, candidates: &[Example]) -> Result<usize, DecodeError> {
    let shared = common_prefix(candidates);
    let mut prompt = decoder.fork();
    if shared > 0 {
        prompt.extend(&candidates[0].tokens()[..shared])?;
    }
    let mut best = (0, f64::NEG_INFINITY);
    for (index, candidate) in candidates.iter().enumerate() {
        // Target tokens of the common prefix are equally likely for all.
        let scores = prompt
            .fork()
            .log_likelihoods(&candidate.tokens()[shared..])?;
        let sum: f64 = scores
            .iter()
            .zip(&candidate.loss_mask()[shared..])
            .filter_map(|(score, target)| target.then_some(*score))
            .sum();
        if sum > best.1 {
            best = (index, sum);
        }
    }
    Ok(best.0)
}

/// Length of the common prefix in tokens, shorter than each candidate.
fn common_prefix(candidates: &[Example]) -> usize {
    let Some(first) = candidates.first().map(Example::tokens) else {
        return 0;
    };
    candidates
        .iter()
        .map(|other| {
            let same = first
                .iter()
                .zip(other.tokens())
                .take_while(|(x, y)| x == y)
                .count();
            same.min(other.tokens().len().saturating_sub(1))
        })
        .min()
        .unwrap_or(0)
}
