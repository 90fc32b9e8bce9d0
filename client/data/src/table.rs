//! Records as the lines of a table: CSV (RFC 4180) with commas or semicolons, and TSV.
//!
//! The first line names the columns. A quoted field may hold separators and line ends, a quote in
//! it is doubled. An empty field is a missing one.

use std::io::{self, BufRead};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::forms::{is_form, names, parse_value};
use super::records::{LONGEST_LINE, LineProblem, Place, Problem, Read};

/// Reads every line of a table after the first; `tabs` separates by tabs alone.
///
/// # Errors
/// What reading from `source` gives. Lines that cannot be used are [`Read::problems`].
pub(super) fn read(source: impl BufRead, file: &str, tabs: bool) -> io::Result<Read> {
    let name: Arc<str> = file.into();
    let mut found = Read::default();
    let mut rows = Rows::new(source, tabs);
    let mut columns: Option<Vec<String>> = None;
    loop {
        let line = rows.line;
        let place = Place::line(&name, line);
        let fields = match rows.next_row()? {
            Row::End => break,
            Row::Blank => {
                found.blank += 1;
                continue;
            }
            Row::Bad(what) => {
                let stop = matches!(what, LineProblem::OpenQuote);
                found.problems.push(Problem { place, what });
                match stop {
                    true => break,
                    false => continue,
                }
            }
            Row::Fields(fields) => fields,
        };
        let Some(columns) = &columns else {
            let fields: Vec<_> = fields.iter().map(|name| name.trim().to_owned()).collect();
            if !is_form(fields.iter().map(String::as_str)) {
                let found_names = names(fields.iter().map(String::as_str));
                let what = LineProblem::Form { found: found_names };
                found.problems.push(Problem { place, what });
                break;
            }
            columns = Some(fields);
            continue;
        };
        let parsed = if fields.len() == columns.len() {
            let filled = columns
                .iter()
                .zip(fields)
                .filter(|(_, field)| !field.is_empty());
            let row: Map<String, Value> = filled
                .map(|(column, field)| (column.clone(), field.into()))
                .collect();
            let row = Value::Object(with_answers(row, columns));
            let text = row.to_string();
            parse_value(row, &text)
        } else {
            Err(LineProblem::Columns {
                found: fields.len(),
                expected: columns.len(),
            })
        };
        found.take(place, parsed);
    }
    Ok(found)
}

/// The row with the empty fields that its form cannot do without, so that these are named.
fn with_answers(mut row: Map<String, Value>, columns: &[String]) -> Map<String, Value> {
    if !is_form(row.keys().map(String::as_str)) {
        for column in columns {
            row.entry(column.clone()).or_insert_with(|| "".into());
        }
    }
    row
}

enum Row {
    Fields(Vec<String>),
    Blank,
    Bad(LineProblem),
    End,
}

/// Lines of a table, in which quoted line ends do not count.
struct Rows<R> {
    source: R,
    tabs: bool,
    /// Chosen by the first line: commas unless that has semicolons alone.
    separator: Option<char>,
    /// The line that comes next, from 1.
    line: usize,
}

impl<R: BufRead> Rows<R> {
    fn new(source: R, tabs: bool) -> Self {
        Self {
            source,
            tabs,
            separator: None,
            line: 1,
        }
    }

    fn next_row(&mut self) -> io::Result<Row> {
        let mut row = FieldScanner::default();
        let mut length = 0;
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = self.read_line(&mut bytes)?;
            if read == 0 {
                return Ok(match length {
                    0 => Row::End,
                    _ => Row::Bad(LineProblem::OpenQuote),
                });
            }
            self.line += 1;
            length += read;
            if length > LONGEST_LINE {
                return Ok(Row::Bad(LineProblem::TooLong));
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return Ok(Row::Bad(LineProblem::Encoding { hint: "" }));
            };
            let text = text.trim_start_matches('\u{feff}');
            if length == read && text.trim().is_empty() {
                return Ok(Row::Blank);
            }
            let separator = *self.separator.get_or_insert(match self.tabs {
                true => '\t',
                false if !text.contains(',') && text.contains(';') => ';',
                false => ',',
            });
            if row.take(text, separator) {
                return Ok(Row::Fields(row.fields));
            }
        }
    }

    /// Appends a line with its end, as far as it is not too long; gives its length.
    fn read_line(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut read = 0;
        loop {
            let here = match self.source.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                here => here?,
            };
            let end = here.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(here.len(), |end| end + 1);
            if bytes.len() + used <= LONGEST_LINE {
                bytes.extend_from_slice(&here[..used]);
            }
            self.source.consume(used);
            read += used;
            if end.is_some() || used == 0 {
                return Ok(read);
            }
        }
    }
}

/// Cuts lines into fields. A quote that does not begin a field is text.
#[derive(Default)]
struct FieldScanner {
    fields: Vec<String>,
    field: String,
    quoted: bool,
    begun: bool,
}

impl FieldScanner {
    /// Takes a line with its end; gives whether the row ends with it.
    fn take(&mut self, line: &str, separator: char) -> bool {
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let ends_line = c == '\n' || c == '\r' && chars.peek() == Some(&'\n');
            match c {
                '"' if self.quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    self.field.push('"');
                }
                '"' if self.quoted => self.quoted = false,
                '"' if !self.begun => (self.quoted, self.begun) = (true, true),
                c if c == separator && !self.quoted => self.end_field(),
                _ if ends_line && !self.quoted => {}
                c => {
                    self.begun = true;
                    self.field.push(c);
                }
            }
        }
        if !self.quoted {
            self.end_field();
        }
        !self.quoted
    }

    fn end_field(&mut self) {
        self.fields.push(std::mem::take(&mut self.field));
        self.begun = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::Content;
    use super::*;

    fn said(text: &str, tabs: bool) -> (Vec<Vec<String>>, Vec<String>) {
        let found = read(text.as_bytes(), "f.csv", tabs).unwrap();
        let texts = |content: &Content| match content {
            Content::Chat(chat) => chat.iter().map(|turn| turn.content.clone()).collect(),
            Content::Text(text) => vec![text.as_str().to_owned()],
        };
        let records = found.records.iter().map(|record| texts(record.content()));
        let problems = found.problems.iter().map(ToString::to_string);
        (records.collect(), problems.collect())
    }

    #[test]
    fn commas_semicolons_and_tabs_separate() {
        for (text, tabs) in [
            (
                "\u{feff}instruction,output\r\nI,\"O, \"\"so\"\"\nand\"\r\n",
                false,
            ),
            ("instruction;output\nI;\"O, \"\"so\"\"\nand\"\n", false),
            ("instruction\toutput\nI\t\"O, \"\"so\"\"\nand\"", true),
        ] {
            let (records, problems) = said(text, tabs);
            assert_eq!(records, [["I", "O, \"so\"\nand"]], "{text}");
            assert_eq!(problems, [""; 0]);
        }
        let (records, _) = said("site,text\na,one 5\" pipe\n\nb,\"two\"\n", false);
        assert_eq!(records, [["one 5\" pipe"], ["two"]]);
    }

    #[test]
    fn lines_that_cannot_be_used_are_named_by_their_first_line() {
        let (records, problems) = said(
            "question,answer,who\n\"Q\n\",A,x\nSECRET,A\nQ,,x\nQ,\"SECRET\n",
            false,
        );
        assert_eq!(records, [["Q\n", "A"]]);
        assert_eq!(
            problems,
            [
                "f.csv:4: 2 fields: the first line names 3 columns",
                "f.csv:6: a quoted field has no end: close it, and double each quote inside",
            ]
        );
        let (records, problems) = said("who,what\nSECRET,SECRET\n", false);
        assert_eq!((records.len(), problems.len()), (0, 1));
        assert!(problems[0].starts_with("f.csv:1: an object with 2 fields of other names"));
        let found = read(b"question,answer\nQ,\n".as_slice(), "f.csv", false).unwrap();
        assert_eq!((found.empty, found.problems), (1, vec![]));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, tabs: bool) {
            let _ = read(bytes.as_slice(), "f", tabs);
        }

        #[test]
        fn what_is_written_is_read(question in "[a-z\"\n,;]{0,12}[a-z]", answer in "[a-z][ ,\"\n]{0,6}") {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let text = format!("question,answer\n{},{}\n", quoted(&question), quoted(&answer));
            let (records, problems) = said(&text, false);
            proptest::prop_assert_eq!(problems, Vec::<String>::new());
            proptest::prop_assert_eq!(records, vec![vec![question, answer]]);
        }
    }
}
