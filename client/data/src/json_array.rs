//! Records as one JSON array, the form in which Alpaca's data is published.
//!
//! The array is cut into its elements as it is read, so that memory holds one of them besides
//! the records, and one broken element does not hide the others.

use std::io::{self, BufRead};
use std::sync::Arc;

use super::forms::parse_value;
use super::json_text;
use super::records::{LONGEST_LINE, LineProblem, Parsed, Place, Problem, Read};

/// Reads every element of the array that `source` holds. A byte-order mark is allowed.
///
/// # Errors
/// What reading from `source` gives. Elements that cannot be used are [`Read::problems`].
pub(super) fn read(source: impl BufRead, file: &str) -> io::Result<Read> {
    let mut elements = Elements::new(source)?;
    let file: Arc<str> = file.into();
    let mut found = Read::default();
    let mut number = 0;
    loop {
        let element = elements.next_element()?;
        number += 1;
        let place = Place {
            file: Arc::clone(&file),
            line: elements.first.line,
            element: Some(number),
        };
        let what = match element {
            Element::Whole => match parse(&elements.text) {
                Ok(parsed) => {
                    found.take(place, Ok(parsed));
                    continue;
                }
                Err(Broken::Record(what)) => what,
                Err(Broken::Json { line, column }) => {
                    // What serde_json counts from the element's beginning.
                    let before = if line == 1 {
                        elements.first.column - 1
                    } else {
                        0
                    };
                    let what = LineProblem::Element {
                        column: before + column,
                    };
                    let place = Place {
                        line: place.line + line - 1,
                        ..place
                    };
                    found.problems.push(Problem { place, what });
                    continue;
                }
            },
            Element::TooLong => LineProblem::TooLong,
            Element::End => break,
            Element::NoEnd | Element::More => {
                let what = match element {
                    Element::NoEnd => LineProblem::NoEnd,
                    _ => LineProblem::AfterEnd,
                };
                let place = Place::line(&file, elements.here.line);
                found.problems.push(Problem { place, what });
                break;
            }
        };
        found.take(place, Err(what));
    }
    Ok(found)
}

enum Broken {
    Json { line: usize, column: usize },
    Record(LineProblem),
}

fn parse(bytes: &[u8]) -> Result<Parsed, Broken> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Broken::Record(LineProblem::Encoding { hint: "" }))?;
    let (value, text) = json_text::parse(text).map_err(|error| Broken::Json {
        line: error.line().max(1),
        column: error.column(),
    })?;
    parse_value(value, &text).map_err(Broken::Record)
}

/// A place in a text, counted from 1; columns in bytes.
#[derive(Debug, Clone, Copy)]
struct Position {
    line: usize,
    column: usize,
}

/// What comes next in an array.
enum Element {
    /// An element, in [`Elements::text`].
    Whole,
    /// An element of more than [`LONGEST_LINE`] bytes, passed over.
    TooLong,
    /// The array's end, and the file's.
    End,
    /// The file's end within the array.
    NoEnd,
    /// Something else after the array's end.
    More,
}

/// The elements of an array as text, told apart by brackets and quotes alone.
struct Elements<R> {
    source: R,
    /// Where the next byte stands.
    here: Position,
    /// Where the last element begins.
    first: Position,
    text: Vec<u8>,
    ended: bool,
}

impl<R: BufRead> Elements<R> {
    /// Begins behind the bracket that opens the array.
    fn new(source: R) -> io::Result<Self> {
        let start = Position { line: 1, column: 1 };
        let mut made = Self {
            source,
            here: start,
            first: start,
            text: Vec::new(),
            ended: false,
        };
        while let Some(byte) = made.next_byte()? {
            if byte == b'[' {
                break;
            }
        }
        Ok(made)
    }

    fn next_byte(&mut self) -> io::Result<Option<u8>> {
        loop {
            let byte = match self.source.fill_buf() {
                Ok(bytes) => bytes.first().copied(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(byte) = byte {
                self.source.consume(1);
                if byte == b'\n' {
                    self.here.line += 1;
                    self.here.column = 1;
                } else {
                    self.here.column += 1;
                }
            }
            return Ok(byte);
        }
    }

    fn next_element(&mut self) -> io::Result<Element> {
        self.text.clear();
        let (mut begun, mut too_long, mut quoted, mut escaped) = (false, false, false, false);
        let mut depth = 0_usize;
        loop {
            let place = self.here;
            let Some(byte) = self.next_byte()? else {
                return Ok(match self.ended {
                    true => Element::End,
                    false => Element::NoEnd,
                });
            };
            if !begun {
                if byte.is_ascii_whitespace() {
                    continue;
                }
                if self.ended {
                    self.here = place;
                    return Ok(Element::More);
                }
                self.first = place;
                begun = true;
            }
            if quoted {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => quoted = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b']' if depth == 0 => {
                        self.ended = true;
                        // `[]`, and the end that follows a last element's comma, hold none.
                        if self.text.is_empty() && !too_long {
                            begun = false;
                            continue;
                        }
                        break;
                    }
                    b',' if depth == 0 => break,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            too_long |= self.text.len() >= LONGEST_LINE;
            if !too_long {
                self.text.push(byte);
            }
        }
        Ok(match too_long {
            true => Element::TooLong,
            false => Element::Whole,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> (Vec<String>, Vec<String>) {
        let found = read(text.as_bytes(), "f.json").unwrap();
        let places = found
            .records
            .iter()
            .map(|record| record.place().to_string());
        let problems = found.problems.iter().map(|problem| {
            let shown = problem.to_string();
            assert!(!format!("{shown}{problem:?}").contains("SECRET"), "{shown}");
            shown
        });
        (places.collect(), problems.collect())
    }

    #[test]
    fn an_array_is_read_element_by_element() {
        let (places, problems) = read_text(
            "\u{feff}[\n  {\n    \"text\": \"a ] } \\\" [\"\n  },\n  {\"text\": \"b\"}, {\"text\": \"c\"}\n]\n",
        );
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            places,
            [
                "f.json:2 (record 1)",
                "f.json:5 (record 2)",
                "f.json:5 (record 3)"
            ]
        );
        assert_eq!(read_text("[]"), (vec![], vec![]));
    }

    #[test]
    fn every_bad_element_is_reported_by_its_line() {
        let (places, problems) = read_text(
            "[{\"text\": \"a\"},\n {\"text\": 7}, \"SECRET\",\n {\"text\":\n  \"SECRET\" oops},\n\
             ,\n {\"text\": \"b\"},\n {\"other\": \"SECRET\"}\n]",
        );
        assert_eq!(places, ["f.json:1 (record 1)", "f.json:6 (record 6)"]);
        assert_eq!(problems.len(), 5);
        assert_eq!(
            problems[0],
            "f.json:2 (record 2): field 'text' is a number: expected text"
        );
        assert_eq!(
            problems[1],
            "f.json:2 (record 3): a string: expected a JSON object for each record"
        );
        assert!(
            problems[2].starts_with("f.json:4 (record 4): not JSON: broken at column 12"),
            "{}",
            problems[2]
        );
        assert!(problems[3].starts_with("f.json:5 (record 5): not JSON"));
        assert!(problems[4].starts_with("f.json:7 (record 7): an object with"));
    }

    #[test]
    fn a_cut_off_array_and_one_with_more_behind_it_are_named() {
        let (places, problems) = read_text("[{\"text\": \"a\"},\n{\"text\": \"SECR");
        assert_eq!((places.len(), problems.len()), (1, 1));
        assert!(problems[0].starts_with("f.json:2: the array that begins the file has no end"));
        let (places, problems) = read_text("[{\"text\": \"a\"}]\n[{\"text\": \"SECRET\"}]");
        assert_eq!((places.len(), problems.len()), (1, 1));
        assert!(problems[0].starts_with("f.json:2: there is more after the end"));
    }

    #[test]
    fn an_element_that_is_too_long_is_passed_over() {
        let long = "x".repeat(LONGEST_LINE);
        let (places, problems) =
            read_text(&format!("[{{\"text\": \"{long}\"}}, {{\"text\": \"b\"}}]"));
        assert_eq!(places, ["f.json:1 (record 2)"]);
        assert!(problems[0].contains("longer than"), "{problems:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_array_like_text_is_read_without_panic(
            text in "\\[([\\[\\]{}\",:\\\\\\n ]|\\{\"text\":\"a\"\\}|text|7){0,40}"
        ) {
            let _ = read(text.as_bytes(), "f");
        }

        #[test]
        fn what_is_written_is_read(texts in proptest::collection::vec("[^\\s]\\PC{0,20}", 0..8)) {
            let all: Vec<_> = texts.iter().map(|text| serde_json::json!({"text": text})).collect();
            for written in [
                serde_json::to_string(&all).unwrap(),
                serde_json::to_string_pretty(&all).unwrap(),
            ] {
                let found = read(written.as_bytes(), "f").unwrap();
                proptest::prop_assert_eq!(found.problems.len(), 0);
                proptest::prop_assert_eq!(found.records.len(), all.len());
            }
        }
    }
}
