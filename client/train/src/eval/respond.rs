//! Free text: greedy responses compared with the references by ROUGE and BLEU.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_data::TextPipeline;

use crate::decode::generate::{Finish, GenerateOptions, generate};
use crate::decode::sampling::Sampling;
use crate::decode::sequence::Decoder;
use crate::eval::error::EvaluationError;
use crate::eval::metrics::{Bleu, Rouge, corpus_bleu};
use crate::eval::question::Question;

/// Figures of generated responses beside their references.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Responses {
    /// Number of records answered.
    pub records: usize,
    /// Number of records left out, whose prompts leave no room for a response.
    pub too_long: usize,
    /// Number of responses that the model did not end itself.
    pub cut: usize,
    /// Tokens generated in all.
    pub tokens: usize,
    /// Mean F-measure of ROUGE-1, over single words, 0 to 1.
    pub rouge1: f64,
    /// Mean F-measure of ROUGE-2, over pairs of words, 0 to 1.
    pub rouge2: f64,
    /// Mean F-measure of ROUGE-L, over the longest common subsequence, 0 to 1.
    pub rouge_l: f64,
    /// BLEU of all responses as one corpus.
    pub bleu: Bleu,
}

/// Answers every question greedily with at most `max_new` tokens. `decoder` must be empty.
/// `progress` receives the number of questions done after each one and may stop; the figures are
/// then of those.
///
/// # Errors
/// A record that the template refuses, or prompts of which none leaves room for a response.
pub fn respond(
    decoder: &Decoder,
    pipeline: &TextPipeline,
    questions: &[Question],
    max_new: NonZeroUsize,
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
