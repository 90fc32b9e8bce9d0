//! Why a line, a row or a record cannot be used. Nothing here shows its content.

use std::fmt;

use super::records::{LONGEST_LINE, Place};

/// How many bad lines an error lists.
pub(super) const LISTED: usize = 20;

/// Why a line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Longer than [`LONGEST_LINE`].
    #[error("longer than {LONGEST_LINE} bytes: split the record")]
    TooLong,
    /// Saved in another encoding.
    #[error("not UTF-8{hint}: save the file as UTF-8")]
    Encoding {
        /// What it looks like instead, if that can be told.
        hint: &'static str,
    },
    /// Not JSON.
    #[error("not JSON: broken at column {column}; each line must be one complete JSON object")]
    Json {
        /// Where reading stopped.
        column: usize,
    },
    /// An element of an array that is not JSON.
    #[error("not JSON: broken at column {column}; each element must be one complete JSON object")]
    Element {
        /// Where reading stopped, in the line that is named.
        column: usize,
    },
    /// An array without its end.
    #[error("the array that begins the file has no end: is the file cut off?")]
    NoEnd,
    /// More behind an array's end.
    #[error("there is more after the end of the array: put all records into one array")]
    AfterEnd,
    /// An object that continues on the next lines.
    #[error(
        "a JSON object over several lines: put each record on one line (JSON Lines), or all \
         records into one array"
    )]
    OverLines,
    /// JSON of another kind.
    #[error("{found}: expected a JSON object for each record")]
    NotAnObject {
        /// What stands there.
        found: &'static str,
    },
    /// None of the forms.
    #[error("an object with {found}: expected {FORMS}")]
    Form {
        /// Known fields by name, others by number.
        found: String,
    },
    /// Two answers to choose between.
    #[error(
        "{found} is preference data: to train on the chosen answers, rename 'chosen' to \
         'completion' and take 'rejected' out"
    )]
    Preference {
        /// The fields, by name.
        found: String,
    },
    /// A field of another kind.
    #[error("field '{field}' is {found}: expected {expected}")]
    Kind {
        /// Which field.
        field: String,
        /// What stands there.
        found: &'static str,
        /// What would do.
        expected: &'static str,
    },
    /// Half of a character that JSON writes as a pair.
    #[error(
        "field '{field}' holds half a character (a lone \\ud800 to \\udfff, as where an emoji is \
         cut in two): write the text whole, or take the half out"
    )]
    HalfCharacter {
        /// Which field.
        field: String,
    },
    /// A number that JSON does not have.
    #[error("field '{field}' is NaN or Infinity, which JSON does not have: expected text")]
    NotANumber {
        /// Which field.
        field: String,
    },
    /// A field without text: the record is left out and counted.
    #[error("field '{field}' is empty: there is nothing to train on")]
    Empty {
        /// Which field.
        field: String,
    },
    /// A role that chat templates do not know.
    #[error(
        "field '{field}' is no role that is known: use system (or developer), user (human), \
         assistant (gpt, model) or tool (function, ipython)"
    )]
    Role {
        /// Which field.
        field: String,
    },
    /// Content other than text.
    #[error("field '{field}' is a content part other than text: only text can be trained on")]
    Part {
        /// Which field.
        field: String,
    },
    /// Calls or tools that are no JSON.
    #[error("field '{field}' is text that should hold JSON, and does not")]
    InnerJson {
        /// Which field.
        field: String,
    },
    /// A chat in which the assistant says nothing.
    #[error("no message has the role 'assistant': there is nothing to train on")]
    NoAssistant,
    /// A chat whose marks keep every turn out.
    #[error(
        "every turn of the assistant has weight 0 or train false: there is nothing to train on"
    )]
    NoneTrained,
    /// A call that the template would lose, with nothing else in its turn.
    #[error(
        "turn {turn} holds {field} alone, which the base's chat template does not show: use a \
         base with a template for tools, or write the calls into the turn's content"
    )]
    CallAlone {
        /// Which turn, from 1.
        turn: usize,
        /// The key that is lost.
        field: String,
    },
    /// Fewer or more fields than the table has columns.
    #[error("{found} fields: the first line names {expected} columns")]
    Columns {
        /// Fields of the line.
        found: usize,
        /// Columns of the table.
        expected: usize,
    },
    /// A quoted field without its end.
    #[error("a quoted field has no end: close it, and double each quote inside")]
    OpenQuote,
    /// What the base's chat template says to it.
    #[error("{why}")]
    Template {
        /// The template's own words, or the kind of error.
        why: String,
    },
    /// Text that the tokenizer refuses.
    #[error("the tokenizer refuses the text")]
    Tokenizer,
    /// Text that the tokenizer would take for its own.
    #[error("the text of {field} holds the tokenizer's control token '{token}': take it out")]
    ControlToken {
        /// Which part of the record.
        field: String,
        /// Which token.
        token: String,
    },
}

/// The forms of records, in words.
pub(super) const FORMS: &str = "messages or conversations (chat), instruction + output (Alpaca), \
    instruction + response (Dolly), prompt + completion, question + answer, or text; rename the \
    fields";

/// A line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it.
    pub what: LineProblem,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Problems one a line, the first [`LISTED`] of them.
pub(super) fn list(problems: &[Problem]) -> String {
    let mut text = match problems.len() {
        1 => "1 line cannot be used".to_owned(),
        count => format!("{count} lines cannot be used"),
    };
    text.push_str(&listed(problems, LISTED));
    text
}

/// The first `most` of the problems, each on a line of its own.
pub(super) fn listed(problems: &[Problem], most: usize) -> String {
    let mut text = String::new();
    for problem in problems.iter().take(most) {
        text.push_str(&format!("\n  {problem}"));
    }
    if problems.len() > most {
        text.push_str(&format!("\n  and {} more", problems.len() - most));
    }
    text
}
