//! Classification by likelihood: of all labels, the model chooses the one that it finds
//! likeliest as the response, its end of turn included, so that a label that begins another
//! has no advantage. Unlike generated text, this always is one of the labels.

use std::ops::ControlFlow;

use super::EvaluationError;
use super::labels::LabelSet;
use super::question::Question;
use crate::eval::metrics::{accuracy, macro_f1};
use crate::{DecodeError, Decoder};
use fedlora_data::TextPipeline;
use fedlora_model::Example;

/// How the labels were chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Classification {
    /// Records that were classified.
    pub records: usize,
    /// Records left out: with one of the labels they are too long.
    pub too_long: usize,
    /// The share that was classified right.
    pub accuracy: f64,
    /// The mean of the labels' F1, over those that stand in the records or were chosen.
    pub macro_f1: f64,
}

/// Classifies every question. `decoder` is without tokens. `progress` hears after each
/// question how many are done and may stop it; then the figures are of those.
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

/// The candidate whose counted tokens are likeliest, the first of equals. What all begin with
/// goes through the model once.
fn likeliest(decoder: &Decoder, candidates: &[Example]) -> Result<usize, DecodeError> {
    let shared = shared_beginning(candidates);
    let mut prompt = decoder.fork();
    if shared > 0 {
        prompt.extend(&candidates[0].tokens()[..shared])?;
    }
    let mut best = (0, f64::NEG_INFINITY);
    for (index, candidate) in candidates.iter().enumerate() {
        // Counted tokens of the shared beginning are equally likely for all.
        let scores = prompt
            .fork()
            .log_likelihoods(&candidate.tokens()[shared..])?;
        let sum: f64 = scores
            .iter()
            .zip(&candidate.loss()[shared..])
            .filter_map(|(score, counts)| counts.then_some(*score))
            .sum();
        if sum > best.1 {
            best = (index, sum);
        }
    }
    Ok(best.0)
}

/// How many tokens all candidates begin with, less than any has.
fn shared_beginning(candidates: &[Example]) -> usize {
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
