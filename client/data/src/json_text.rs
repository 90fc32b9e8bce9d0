//! JSON as Python writes it: `NaN` and `Infinity`, and halves of surrogate pairs.
//!
//! Python's `json` writes and reads both, and other readers refuse them. In a field that is not
//! used they do no harm; where they stand for a record's text, the record is refused by name.

use std::borrow::Cow;

use serde_json::Value;

/// Stands for half a surrogate pair: a code point that no text uses (Unicode, noncharacters).
pub(super) const HALF: char = '\u{fdd0}';
/// What stands for NaN and the infinities: minus zero, which says as little.
const NO_NUMBER: &[u8] = b"-0";

/// Numbers that Python writes and JSON does not have.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// Whether a value stands for NaN or an infinity.
pub(super) fn is_no_number(value: &Value) -> bool {
    let number = value.as_f64().filter(|_| value.is_f64());
    number.is_some_and(|number| number == 0.0 && number.is_sign_negative())
}

/// Reads a JSON value; gives the text too, with what is not JSON replaced.
///
/// # Errors
/// What the parser says, by the columns of `text`.
pub(super) fn parse(text: &str) -> Result<(Value, Cow<'_, str>), serde_json::Error> {
    let error = match serde_json::from_str(text) {
        Ok(value) => return Ok((value, Cow::Borrowed(text))),
        Err(error) => error,
    };
    let Some(repaired) = repaired(text) else {
        return Err(error);
    };
    let value = serde_json::from_str(&repaired)?;
    Ok((value, Cow::Owned(repaired)))
}

/// The text of the same length with stand-ins, if there is anything to replace.
fn repaired(text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let (mut at, mut quoted, mut changed) = (0, false, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match (quoted, rest[0]) {
            (_, b'"') => {
                quoted = !quoted;
                1
            }
            (true, b'\\') => match (unit(rest), rest.get(6..).and_then(unit)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => {
                    bytes[at..at + 6].copy_from_slice(br"\ufdd0");
                    changed = true;
                    6
                }
                _ => 2,
            },
            (false, _) => match NO_NUMBERS.iter().find(|name| rest.starts_with(name)) {
                Some(name) => {
                    let end = at + name.len();
                    bytes[at..end].fill(b' ');
                    bytes[at..at + NO_NUMBER.len()].copy_from_slice(NO_NUMBER);
                    changed = true;
                    name.len()
                }
                None => 1,
            },
            _ => 1,
        };
        at += length;
    }
    changed.then(|| String::from_utf8(bytes).ok()).flatten()
}

/// The code unit of an escape `\uXXXX` at the beginning.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(br"\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_alone_reads_has_a_stand_in() {
        let read = |text: &str| parse(text).map(|(value, _)| value);
        let value = read(r#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \ud83d"}"#).unwrap();
        assert!(is_no_number(&value["a"]));
        assert!(value["b"].as_array().unwrap().iter().all(is_no_number));
        assert!(!is_no_number(&read("0").unwrap()) && !is_no_number(&read("0.0").unwrap()));
        assert_eq!(value["c"], format!("NaN {HALF}"));
        let whole = read(r#"{"a": "\ud83d\udea4 \\ud83d", "b": NaN}"#).unwrap();
        assert_eq!(whole["a"], "\u{1f6a4} \\ud83d");
        assert_eq!(
            read(r#""x\udc00\ud83d""#).unwrap(),
            format!("x{HALF}{HALF}")
        );
    }

    #[test]
    fn what_is_broken_stays_broken_at_its_place() {
        let column = |text: &str| parse(text).unwrap_err().column();
        assert_eq!(column(r#"{"a": NaN, "b": oops}"#), 17);
        assert_eq!(column(r#"{"a": oops}"#), 7);
        assert!(parse("NaNo").is_err() && parse("{\"a\": \"\\ud8").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "([\\[\\]{}\",:\\\\]|u|d8|NaN|Infinity|0|\\PC){0,40}") {
            let _ = parse(&text);
        }
    }
}
