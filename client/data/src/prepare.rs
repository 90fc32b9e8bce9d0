//! Makes examples with a loss mask of records, and reports what became of each record.

use std::collections::HashSet;

use fedlora_common::digest::Digest;
use rayon::prelude::*;
use serde::Serialize;

use super::chat::Chat;
use super::dropped::{Cause, DropCounts, Dropped, LeftOut, Warning};
use super::problem::{LineProblem, Problem};
use super::records::{Content, Record};
use super::remedy::Remedy;
use super::tokenizer::{TextPipeline, TokenizerError};
use fedlora_model::Example;

/// How records are made into examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Longest example, in tokens; a longer one loses its end.
    pub max_tokens: usize,
    /// Whether plain texts get the base's end-of-text token, which is then trained on too.
    pub end_texts: bool,
}

impl PrepareOptions {
    /// Examples of at most `max_tokens`, plain texts as they are.
    pub fn new(max_tokens: usize) -> Self {
        Self {
            max_tokens,
            end_texts: false,
        }
    }
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
    #[error("{}", super::problem::list(.0))]
    Records(Vec<Problem>),
}

impl PrepareError {
    /// What would help, where that is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Records(problems) => Some(Remedy::for_problems(problems)),
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
    /// What is left out of the records that are made into examples.
    pub dropped: Vec<Dropped>,
    /// What their owner should know.
    pub warnings: Vec<Warning>,
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
    let tokenised: Vec<(Digest, Result<Tokenised, LineProblem>)> = records
        .par_iter()
        .map(|record| (record.digest(), tokenise(record, pipeline, options)))
        .collect();

    let mut made = Prepared::default();
    let report = &mut made.report;
    let mut seen = HashSet::new();
    let (mut drops, mut notes) = (DropCounts::default(), NoteCounts::default());
    for (index, (record, (digest, example))) in records.iter().zip(tokenised).enumerate() {
        report.records += 1;
        report.duplicates += usize::from(!seen.insert(digest));
        let example = match example {
            Ok(tokenised) => {
                drops.add(record.left_out().iter().chain(&tokenised.left_out));
                notes.add(tokenised.notes);
                tokenised.example
            }
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
    made.dropped = drops.counted();
    made.warnings = notes.warnings(pipeline, options);
    Ok(made)
}

/// A record's example, and what there is to say of it.
struct Tokenised {
    example: Example,
    left_out: Vec<LeftOut>,
    notes: Notes,
}

/// What there is to say of a record besides what is left out.
#[derive(Debug, Clone, Copy, Default)]
struct Notes {
    /// A turn holds the text of a control token, which stays text.
    control_text: bool,
    /// A plain text holds control tokens.
    control_tokens: bool,
    /// A plain text begins with the token that the tokenizer puts before it.
    begun_twice: bool,
    /// Nothing ends a plain text.
    endless: bool,
}

/// How many records there is something to say of.
#[derive(Debug, Default)]
struct NoteCounts {
    control_text: usize,
    control_tokens: usize,
    begun_twice: usize,
    endless: usize,
}

impl NoteCounts {
    fn add(&mut self, notes: Notes) {
        self.control_text += usize::from(notes.control_text);
        self.control_tokens += usize::from(notes.control_tokens);
        self.begun_twice += usize::from(notes.begun_twice);
        self.endless += usize::from(notes.endless);
    }

    fn warnings(&self, pipeline: &TextPipeline, options: &PrepareOptions) -> Vec<Warning> {
        let records = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        let end = match (pipeline.end_name(), options.end_texts) {
            (Some(end), _) => format!("the base's end of text ('{end}')"),
            (None, false) => "an end of text".to_owned(),
            (None, true) => "an end of text, and the base names no token for it".to_owned(),
        };
        let all = [
            (
                self.control_text,
                "control_text",
                records(self.control_text, "chat")
                    + ": text of the tokenizer's control tokens \
                 within the turns is trained on as plain text",
            ),
            (
                self.control_tokens,
                "control_tokens",
                records(self.control_tokens, "plain text")
                    + ": the tokenizer's control tokens in \
                 them are taken as such",
            ),
            (
                self.begun_twice,
                "begun_twice",
                records(self.begun_twice, "plain text")
                    + ": the token that begins a text stands \
                 in them and is put before them by the tokenizer; it is taken once",
            ),
            (
                self.endless,
                "no_end",
                records(self.endless, "plain text")
                    + " without "
                    + &end
                    + ": the model does not \
                 learn to stop",
            ),
        ];
        let said = all.into_iter().filter(|(count, ..)| *count > 0);
        said.map(|(_, kind, text)| Warning { kind, text }).collect()
    }
}

fn tokenise(
    record: &Record,
    pipeline: &TextPipeline,
    options: &PrepareOptions,
) -> Result<Tokenised, LineProblem> {
    match record.content() {
        Content::Chat(chat) => tokenise_chat(chat, pipeline),
        Content::Text(text) => tokenise_text(text.as_str(), pipeline, options),
    }
}

fn tokenise_chat(chat: &Chat, pipeline: &TextPipeline) -> Result<Tokenised, LineProblem> {
    let shown = pipeline.chat_as_shown(chat.into()).map_err(problem)?;
    let mut left_out = pipeline.left_out(chat.into(), &shown.text)?;
    if shown.missed > 0 {
        left_out.push(LeftOut::new("content", Cause::NotFound));
    }
    Ok(Tokenised {
        example: shown.example,
        left_out,
        notes: Notes {
            control_text: shown.holds_control,
            ..Notes::default()
        },
    })
}

fn tokenise_text(
    text: &str,
    pipeline: &TextPipeline,
    options: &PrepareOptions,
) -> Result<Tokenised, LineProblem> {
    let mut tokens = pipeline.encode_text(text).map_err(problem)?;
    let twice = matches!(tokens[..], [first, second, ..] if first == second
        && pipeline.is_special(first)
        && pipeline.starts_with_token(text, first));
    if twice {
        tokens.remove(0);
    }
    let ends = |tokens: &[u32]| {
        let last = tokens.last();
        last.is_some_and(|last| pipeline.end_tokens().any(|end| end == *last))
    };
    if options.end_texts && !ends(&tokens) {
        tokens.extend(pipeline.end_of_text());
    }
    let notes = Notes {
        control_tokens: pipeline.holds_control(text),
        begun_twice: twice,
        endless: !ends(&tokens),
        ..Notes::default()
    };
    let counts = vec![true; tokens.len()];
    Ok(Tokenised {
        example: Example::new(tokens, counts),
        left_out: Vec::new(),
        notes,
    })
}

fn problem(error: TokenizerError) -> LineProblem {
    match error {
        TokenizerError::Template(error) => LineProblem::Template {
            why: error.to_string(),
        },
        _ => LineProblem::Tokenizer,
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
