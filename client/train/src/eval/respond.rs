//! Free text: greedy responses compared with the references by ROUGE and BLEU.

use std::ops::ControlFlow;

use super::EvaluationError;
use super::question::Question;
use crate::Decoder;
use crate::decode::{Finish, GenerateOptions, Sampling, generate};
use crate::eval::metrics::{Bleu, Rouge, corpus_bleu};
use fedlora_data::TextPipeline;

/// How the responses compare with the references.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Responses {
    /// Records that were answered.
    pub records: usize,
    /// Records left out: their prompts leave no room for a response.
    pub too_long: usize,
    /// Responses that were cut at the limit.
    pub cut: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Mean F-measure by single words.
    pub rouge1: f64,
    /// Mean F-measure by pairs of words.
    pub rouge2: f64,
    /// Mean F-measure by the longest common subsequence.
    pub rouge_l: f64,
    /// Of all responses as one corpus.
    pub bleu: Bleu,
}

/// Answers every question with at most `max_new` tokens. `decoder` is without tokens.
/// `progress` hears after each question how many are done and may stop it; then the figures
/// are of those.
///
/// # Errors
/// A record that the template refuses, or prompts that all leave no room.
pub fn respond(
    decoder: &Decoder,
    pipeline: &TextPipeline,
    questions: &[Question],
    max_new: usize,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Responses, EvaluationError> {
    let options = GenerateOptions {
        max_tokens: max_new,
        sampling: Sampling::Greedy,
        ends: pipeline.end_tokens().collect(),
        stops: Vec::new(),
    };
    let mut pairs: Vec<(String, &str)> = Vec::with_capacity(questions.len());
    let (mut too_long, mut cut, mut tokens) = (0, 0, 0);
    for (index, question) in questions.iter().enumerate() {
        let prompt =
            pipeline
                .prompt(question.turns())
                .map_err(|source| EvaluationError::Refused {
                    place: question.place().to_owned(),
                    source,
                })?;
        if prompt.len() > decoder.room() {
            too_long += 1;
        } else {
            let mut on = |_: &str| ControlFlow::Continue(());
            let made = generate(decoder.fork(), pipeline, &prompt, &options, &mut on)?;
            cut += usize::from(made.finish != Finish::End);
            tokens += made.tokens.len();
            pairs.push((made.text, question.reference()));
        }
        if progress(index + 1).is_break() {
            break;
        }
    }
    if pairs.is_empty() {
        return Err(EvaluationError::TooLong {
            records: questions.len(),
            max_tokens: decoder.room(),
        });
    }
    let rouge: Vec<Rouge> = pairs
        .iter()
        .map(|(response, reference)| Rouge::of(response, reference))
        .collect();
    let mean = |score: fn(&Rouge) -> f64| rouge.iter().map(score).sum::<f64>() / pairs.len() as f64;
    Ok(Responses {
        records: pairs.len(),
        too_long,
        cut,
        tokens,
        rouge1: mean(|rouge| rouge.rouge1.f_measure),
        rouge2: mean(|rouge| rouge.rouge2.f_measure),
        rouge_l: mean(|rouge| rouge.rouge_l.f_measure),
        bleu: corpus_bleu(
            pairs
                .iter()
                .map(|(response, reference)| (response.as_str(), *reference)),
        ),
    })
}
