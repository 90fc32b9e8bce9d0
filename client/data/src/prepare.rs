//! Makes examples with a loss mask of records, and reports what became of each record.

use std::collections::HashSet;

use fedlora_common::digest::Digest;
use rayon::prelude::*;
use serde::Serialize;

use super::records::{Content, LineProblem, Problem, Record};
use super::remedy::Remedy;
use super::tokenizer::{TextPipeline, TokenizerError};
use fedlora_model::Example;

/// How records are made into examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Longest example, in tokens; a longer one loses its end.
    pub max_tokens: usize,
}

/// What became of the records. Counts only, nothing of their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DataReport {
    /// Records that were to be prepared.
    pub records: usize,
    /// Examples made of them.
    pub examples: usize,
    /// Tokens in the examples.
    pub tokens: usize,
    /// Target tokens: those that the loss mask selects.
    pub counted_tokens: usize,
    /// Tokens of the longest record, before truncation.
    pub longest: usize,
    /// Examples that lost their end.
    pub truncated: usize,
    /// Tokens that those lost.
    pub tokens_lost: usize,
    /// Records left out: after truncation no target token is left.
    pub nothing_counted: usize,
    /// Records left out before: their text, prompt or response is empty. Not among `records`.
    pub empty: usize,
    /// Records whose content another record has too. They are kept.
    pub duplicates: usize,
}

/// Why records cannot be made into examples.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// An example needs a token to predict and one before it.
    #[error("the longest example may have {got} tokens: expected at least 2")]
    MaxTokens {
        /// What was given.
        got: usize,
    },
    /// The base cannot serve these records at all.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Records that hold control tokens, or that the template or the tokenizer refuses.
    #[error("{}", super::records::list(.0))]
    Records(Vec<Problem>),
}

impl PrepareError {
    /// What would help, where that is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Records(problems) => Remedy::for_problems(problems),
            _ => None,
        }
    }
}

/// Examples with what is known about each record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// One for each record that has target tokens, in order.
    pub examples: Vec<Example>,
    /// The record that each example was made of, by its number.
    pub origins: Vec<usize>,
    /// Tokens of each record that could be tokenised, before truncation, in order.
    pub lengths: Vec<usize>,
    /// What became of the records.
    pub report: DataReport,
    /// Records that cannot be made into examples.
    pub problems: Vec<Problem>,
}

/// Makes one example of each record. The records are worked on side by side; what comes of them
/// is in their order.
///
/// # Errors
/// [`PrepareError::MaxTokens`], and [`PrepareError::Tokenizer`] where the records are chats and
/// the base has no chat template. What is wrong with single records is in
/// [`Prepared::problems`].
pub fn prepare(
    records: &[Record],
    pipeline: &TextPipeline,
    options: &PrepareOptions,
) -> Result<Prepared, PrepareError> {
    if options.max_tokens < 2 {
        return Err(PrepareError::MaxTokens {
            got: options.max_tokens,
        });
    }
    let chat = |record: &Record| matches!(record.content(), Content::Chat(_));
    if !pipeline.has_template() && records.iter().any(chat) {
        return Err(TokenizerError::Template(pipeline.no_template()).into());
    }
    let tokenised: Vec<(Digest, Result<Example, LineProblem>)> = records
        .par_iter()
        .map(|record| (record.digest(), tokenise(record, pipeline)))
        .collect();

    let mut made = Prepared::default();
    let report = &mut made.report;
    let mut seen = HashSet::new();
    for (index, (record, (digest, example))) in records.iter().zip(tokenised).enumerate() {
        report.records += 1;
        report.duplicates += usize::from(!seen.insert(digest));
        let example = match example {
            Ok(example) => example,
            Err(what) => {
                let place = record.place().clone();
                made.problems.push(Problem { place, what });
                continue;
            }
        };
        made.lengths.push(example.tokens().len());
        let example = truncate(example, options.max_tokens, report);
        if example.target_tokens() == 0 {
            report.nothing_counted += 1;
            continue;
        }
        report.examples += 1;
        report.tokens += example.tokens().len();
        report.counted_tokens += example.target_tokens();
        made.examples.push(example);
        made.origins.push(index);
    }
    Ok(made)
}

fn tokenise(record: &Record, pipeline: &TextPipeline) -> Result<Example, LineProblem> {
    control_tokens(record, pipeline)?;
    let example = match record.content() {
        Content::Chat(turns) => pipeline.chat(turns),
        Content::Text(text) => pipeline.text(text.as_str()),
    };
    example.map_err(|error| match error {
        TokenizerError::Template(error) => LineProblem::Template {
            why: error.to_string(),
        },
        _ => LineProblem::Tokenizer,
    })
}

fn control_tokens(record: &Record, pipeline: &TextPipeline) -> Result<(), LineProblem> {
    match record.content() {
        Content::Text(text) => pipeline.refuse_control(text.as_str(), "field 'text'"),
        Content::Chat(turns) => turns.iter().try_for_each(|turn| {
            pipeline.refuse_control(&turn.content, &format!("the {} turn", turn.role))
        }),
    }
}

fn truncate(example: Example, max_tokens: usize, report: &mut DataReport) -> Example {
    let length = example.tokens().len();
    report.longest = report.longest.max(length);
    if length <= max_tokens {
        return example;
    }
    report.truncated += 1;
    report.tokens_lost += length - max_tokens;
    Example::new(
        example.tokens()[..max_tokens].to_vec(),
        example.loss_mask()[..max_tokens].to_vec(),
    )
}
