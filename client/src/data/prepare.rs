//! Records into scored examples, with an account of what became of each.

use std::collections::HashSet;

use serde::Serialize;

use super::example::Example;
use super::records::{Content, LineProblem, Place, Problem, Record};
use super::template::TemplateError;
use super::tokenizer::{TextPipeline, TokenizerError};

/// How records are made into examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Longest example, in tokens; a longer one loses its end.
    pub max_tokens: usize,
}

/// What became of the records. Counts only, nothing of their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DataReport {
    /// Records given.
    pub records: usize,
    /// Examples made of them.
    pub examples: usize,
    /// Tokens in the examples.
    pub tokens: usize,
    /// Tokens whose prediction counts.
    pub counted_tokens: usize,
    /// Tokens of the longest record, before truncation.
    pub longest: usize,
    /// Examples that lost their end.
    pub truncated: usize,
    /// Tokens that those lost.
    pub tokens_lost: usize,
    /// Records left out: after truncation nothing of them counts.
    pub nothing_counted: usize,
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
    Tokenizer(TokenizerError),
    /// Records that hold control tokens.
    #[error("{}", super::dataset::list(.0))]
    Records(Vec<Problem>),
    /// The template refuses a record.
    #[error("{place}: {source}")]
    Refused {
        /// Which record.
        place: Place,
        /// Why.
        source: TokenizerError,
    },
}

/// Makes one example of each record.
///
/// # Errors
/// [`PrepareError`]: all records with control tokens at once, otherwise the first that the
/// base's template or tokenizer refuses.
pub fn prepare<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    pipeline: &TextPipeline,
    options: &PrepareOptions,
) -> Result<(Vec<Example>, DataReport), PrepareError> {
    if options.max_tokens < 2 {
        return Err(PrepareError::MaxTokens {
            got: options.max_tokens,
        });
    }
    let mut report = DataReport::default();
    let mut seen = HashSet::new();
    let (mut examples, mut problems) = (Vec::new(), Vec::new());
    for record in records {
        report.records += 1;
        report.duplicates += usize::from(!seen.insert(record.digest()));
        if let Err(what) = control_tokens(record, pipeline) {
            let place = record.place().clone();
            problems.push(Problem { place, what });
            continue;
        }
        let example = match record.content() {
            Content::Chat(turns) => pipeline.chat(turns),
            Content::Text(text) => pipeline.text(text.as_str()),
        };
        let example = example.map_err(|source| match source {
            TokenizerError::Template(TemplateError::Missing { .. }) => {
                PrepareError::Tokenizer(source)
            }
            source => PrepareError::Refused {
                place: record.place().clone(),
                source,
            },
        })?;
        let example = truncate(example, options.max_tokens, &mut report);
        if example.counted() == 0 {
            report.nothing_counted += 1;
            continue;
        }
        report.examples += 1;
        report.tokens += example.tokens().len();
        report.counted_tokens += example.counted();
        examples.push(example);
    }
    if problems.is_empty() {
        Ok((examples, report))
    } else {
        Err(PrepareError::Records(problems))
    }
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
        example.loss()[..max_tokens].to_vec(),
    )
}
