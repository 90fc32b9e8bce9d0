//! Records in the four forms that members keep (Alpaca, Dolly, chat and text), and the reader
//! of JSON Lines.
//!
//! Every line that cannot be used is reported by file and line with what was found and what
//! would do. A report never shows the line's content.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

use fedlora_common::digest::{Digest, DigestWriter};
use serde_json::{Map, Value};

/// Longest line that is read, in bytes.
pub const LONGEST_LINE: usize = 4 << 20;
/// Longest value that [`Record::label`] keeps, in bytes.
pub(super) const LONGEST_LABEL: usize = 256;
/// How many bad lines an error lists.
pub(super) const LISTED: usize = 20;
/// Roles that a turn may have.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];
/// Field names that an error may repeat: all others could be private.
pub(super) const KNOWN: [&str; 8] = [
    "instruction",
    "input",
    "output",
    "context",
    "response",
    "messages",
    "text",
    "system",
];

/// One turn of a chat.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'static str,
    /// What was said. Private.
    pub content: String,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({}, {} bytes)", self.role, self.content.len())
    }
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Turns, of which the assistant's are trained on. There is at least one of those.
    Chat(Vec<Turn>),
    /// Text that is trained on as a whole.
    Text(PrivateText),
}

/// Text whose `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateText(String);

impl PrivateText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// One record and where it stood.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    content: Content,
    labels: BTreeMap<String, String>,
    place: Place,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("content", &self.content)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Record {
    pub(super) fn new((content, labels): Parsed, place: Place) -> Self {
        Self {
            content,
            labels,
            place,
        }
    }

    /// What it holds.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Where it stood.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The value of a field outside the content, such as `institution`.
    pub fn label(&self, field: &str) -> Option<&str> {
        self.labels.get(field).map(String::as_str)
    }

    /// A digest of the content alone: the same in whatever file, line and form it stands.
    pub fn digest(&self) -> Digest {
        let mut writer = DigestWriter::new("fedlora data record 1");
        match &self.content {
            Content::Text(text) => {
                writer.number(0).bytes(text.0.as_bytes());
            }
            Content::Chat(turns) => {
                writer.number(turns.len() as u64);
                for turn in turns {
                    writer.bytes(turn.role.as_bytes());
                    writer.bytes(turn.content.as_bytes());
                }
            }
        }
        writer.finish()
    }
}

/// A file and a line or row in it, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// The line, or the row of a Parquet file.
    pub line: usize,
    /// The element of a JSON array, several of which may stand on a line.
    pub element: Option<usize>,
}

impl Place {
    /// A line or row.
    pub(super) fn line(file: &Arc<str>, line: usize) -> Self {
        Self {
            file: Arc::clone(file),
            line,
            element: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)?;
        match self.element {
            Some(element) => write!(f, " (record {element})"),
            None => Ok(()),
        }
    }
}

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
    /// None of the four forms.
    #[error(
        "an object with {found}: expected instruction + output (Alpaca), instruction + response \
         (Dolly), messages (chat) or text"
    )]
    Form {
        /// Known fields by name, others by number.
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
    /// A field without text: the record is left out and counted.
    #[error("field '{field}' is empty: there is nothing to train on")]
    Empty {
        /// Which field.
        field: String,
    },
    /// A role that chat templates do not know.
    #[error("field '{field}' is no role that is known: use system, user, assistant or tool")]
    Role {
        /// Which field.
        field: String,
    },
    /// A chat in which the assistant says nothing.
    #[error("no message has the role 'assistant': there is nothing to train on")]
    NoAssistant,
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
    for problem in problems.iter().take(LISTED) {
        text.push_str(&format!("\n  {problem}"));
    }
    if problems.len() > LISTED {
        text.push_str(&format!("\n  and {} more", problems.len() - LISTED));
    }
    text
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The records.
    pub records: Vec<Record>,
    /// Lines, elements or rows that are not records.
    pub problems: Vec<Problem>,
    /// Lines without anything on them, which are passed over.
    pub blank: usize,
    /// Records with an empty text, prompt or response, which are left out.
    pub empty: usize,
}

impl Read {
    /// Takes what was found where a record was expected.
    pub(super) fn take(&mut self, place: Place, parsed: Result<Parsed, LineProblem>) {
        match parsed {
            Ok(parsed) => self.records.push(Record::new(parsed, place)),
            // Published data sets hold some; they are no mistake of the file's form.
            Err(LineProblem::Empty { .. }) => self.empty += 1,
            Err(what) => self.problems.push(Problem { place, what }),
        }
    }
}

/// Reads every line of `source`. Blank lines, a byte-order mark and CRLF are allowed.
/// Memory holds one line of at most [`LONGEST_LINE`] bytes besides the records.
///
/// # Errors
/// What reading from `source` gives. Lines that cannot be used are [`Read::problems`].
pub fn read(source: impl BufRead, file: &str) -> io::Result<Read> {
    let mut lines = Lines::new(source);
    let file: Arc<str> = file.into();
    let mut found = Read::default();
    let mut number = 0;
    while let Some(line) = lines.next_line()? {
        number += 1;
        let place = Place::line(&file, number);
        let parsed = match line {
            Line::TooLong => Err(LineProblem::TooLong),
            Line::Whole(bytes) if number == 1 => parse_first(bytes),
            Line::Whole(bytes) => parse_line(bytes),
        };
        match parsed {
            Ok(None) => found.blank += 1,
            Ok(Some(parsed)) => found.take(place, Ok(parsed)),
            Err(what) => {
                // The same would be said of every line.
                let stop = matches!(what, LineProblem::OverLines)
                    || matches!(what, LineProblem::Encoding { hint } if !hint.is_empty());
                found.take(place, Err(what));
                if stop {
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// A record's content and its other text fields.
pub type Parsed = (Content, BTreeMap<String, String>);

fn parse_first(bytes: &[u8]) -> Result<Option<Parsed>, LineProblem> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(LineProblem::Encoding {
            hint: " but UTF-16",
        });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.trim_ascii() == b"{" {
        return Err(LineProblem::OverLines);
    }
    parse_line(bytes)
}

/// Reads one line; a blank one is `None`.
///
/// # Errors
/// [`LineProblem`], which never shows the line's content.
pub fn parse_line(bytes: &[u8]) -> Result<Option<Parsed>, LineProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| LineProblem::Encoding { hint: "" })?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_str(text).map_err(|error| LineProblem::Json {
        column: error.column(),
    })?;
    parse_value(value).map(Some)
}

/// Takes a record out of a JSON value.
pub(super) fn parse_value(value: Value) -> Result<Parsed, LineProblem> {
    let Value::Object(mut object) = value else {
        return Err(LineProblem::NotAnObject {
            found: kind(&value),
        });
    };
    let content = content(&mut object)?;
    let labels = object
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) if text.len() <= LONGEST_LABEL => Some((key, text)),
            _ => None,
        })
        .collect();
    Ok((content, labels))
}

/// Takes the content's fields out of `object`.
fn content(object: &mut Map<String, Value>) -> Result<Content, LineProblem> {
    let has = |field: &str| object.contains_key(field);
    if has("messages") {
        return messages(object.remove("messages").unwrap_or_default()).map(Content::Chat);
    }
    if has("instruction") && (has("output") || has("response")) {
        let (extra, answer) = if has("output") {
            ("input", "output")
        } else {
            ("context", "response")
        };
        let system = optional_text(object, "system")?;
        let mut question = required_text(object, "instruction")?;
        if let Some(extra) = optional_text(object, extra)? {
            question.push_str("\n\n");
            question.push_str(&extra);
        }
        let answer = required_text(object, answer)?;
        let turns = [("user", question), ("assistant", answer)];
        let system = system.map(|text| ("system", text));
        return Ok(Content::Chat(
            system
                .into_iter()
                .chain(turns)
                .map(|(role, content)| Turn { role, content })
                .collect(),
        ));
    }
    if has("text") {
        return Ok(Content::Text(PrivateText(required_text(object, "text")?)));
    }
    Err(LineProblem::Form {
        found: fields(object.keys().map(String::as_str)),
    })
}

fn messages(value: Value) -> Result<Vec<Turn>, LineProblem> {
    let Value::Array(messages) = value else {
        return Err(LineProblem::Kind {
            field: "messages".to_owned(),
            found: kind(&value),
            expected: "an array of {\"role\", \"content\"} objects",
        });
    };
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let Value::Object(mut message) = message else {
            return Err(LineProblem::Kind {
                field: place,
                found: kind(&message),
                expected: "a {\"role\", \"content\"} object",
            });
        };
        let role = text_field(&mut message, "role", &format!("{place}.role"))?;
        let role = ROLES.into_iter().find(|known| *known == role);
        let role = role.ok_or_else(|| LineProblem::Role {
            field: format!("{place}.role"),
        })?;
        match text_field(&mut message, "content", &format!("{place}.content")) {
            Ok(content) => turns.push(Turn { role, content }),
            // As if there were none.
            Err(LineProblem::Empty { .. }) if role == "system" => {}
            Err(problem) => return Err(problem),
        }
    }
    if turns.iter().all(|turn| turn.role != "assistant") {
        return Err(LineProblem::NoAssistant);
    }
    Ok(turns)
}

fn required_text(object: &mut Map<String, Value>, field: &str) -> Result<String, LineProblem> {
    text_field(object, field, field)
}

fn text_field(
    object: &mut Map<String, Value>,
    field: &str,
    shown: &str,
) -> Result<String, LineProblem> {
    match object.remove(field).unwrap_or_default() {
        Value::String(text) if text.trim().is_empty() => Err(LineProblem::Empty {
            field: shown.to_owned(),
        }),
        Value::String(text) => Ok(text),
        other => Err(LineProblem::Kind {
            field: shown.to_owned(),
            found: kind(&other),
            expected: "text",
        }),
    }
}

/// Text that may be missing, null or empty.
fn optional_text(
    object: &mut Map<String, Value>,
    field: &str,
) -> Result<Option<String>, LineProblem> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.trim().is_empty())),
        Some(other) => Err(LineProblem::Kind {
            field: field.to_owned(),
            found: kind(&other),
            expected: "text",
        }),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null or missing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The fields of an object in words: the known by name, the others by number.
pub(super) fn fields<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let (known, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| KNOWN.contains(name));
    match (known.is_empty(), others.len()) {
        (true, 0) => "no field".to_owned(),
        (true, 1) => "a field of another name".to_owned(),
        (true, n) => format!("{n} fields of other names"),
        (false, 0) => known.join(" + "),
        (false, 1) => format!("{} and a field of another name", known.join(" + ")),
        (false, n) => format!("{} and {n} fields of other names", known.join(" + ")),
    }
}

enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

/// Lines of bounded length.
struct Lines<R> {
    source: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    fn new(source: R) -> Self {
        Self {
            source,
            line: Vec::new(),
        }
    }

    /// The next line without its end, or `None` after the last.
    fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let bytes = match self.source.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                break;
            }
            any = true;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            too_long |= self.line.len() + part.len() > LONGEST_LINE;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(bytes.len(), |end| end + 1);
            self.source.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(match (any, too_long) {
            (false, _) => None,
            (true, true) => Some(Line::TooLong),
            (true, false) => Some(Line::Whole(&self.line)),
        })
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
