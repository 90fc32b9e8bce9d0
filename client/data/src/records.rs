//! Records, and the reader of JSON Lines.
//!
//! Every line that cannot be used is reported by file and line with what was found and what
//! would do. A report never shows the line's content.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};
use std::sync::Arc;

use fedlora_common::digest::{Digest, DigestWriter};

use super::chat::Chat;
use super::dropped::LeftOut;
use super::forms::parse_value;
use super::json_text;
pub use super::problem::{LineProblem, Problem};

/// Longest line that is read, in bytes.
pub const LONGEST_LINE: usize = 4 << 20;
/// Longest value that [`Record::label`] keeps, in bytes.
pub(super) const LONGEST_LABEL: usize = 256;

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Turns, of which the assistant's are trained on. There is at least one of those.
    Chat(Chat),
    /// Text that is trained on as a whole.
    Text(PrivateText),
}

/// Text whose `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateText(String);

impl PrivateText {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

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
    left_out: Vec<LeftOut>,
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
    pub(super) fn new(parsed: Parsed, place: Place) -> Self {
        Self {
            content: parsed.content,
            labels: parsed.labels,
            left_out: parsed.left_out,
            place,
        }
    }

    /// What of it has no place in its form.
    pub(super) fn left_out(&self) -> &[LeftOut] {
        &self.left_out
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
            Content::Chat(chat) => chat.digest(&mut writer),
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

/// A record's content, its other text fields, and what of it has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What is trained on.
    pub content: Content,
    /// Short texts under other keys.
    pub labels: BTreeMap<String, String>,
    /// What is left out.
    pub left_out: Vec<LeftOut>,
}

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
    let (value, text) = json_text::parse(text).map_err(|error| LineProblem::Json {
        column: error.column(),
    })?;
    parse_value(value, &text).map(Some)
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
