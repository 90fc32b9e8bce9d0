//! Python's methods of strings, lists and dictionaries, as chat templates call them.
//!
//! `minijinja-contrib` has most of them. What stands here are the methods that it lacks and those
//! that it computes otherwise than Python; `client/vectors/jinja.json` holds Jinja2's answers.
//! Lists cannot be changed in place: Transformers' sandbox forbids it too.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::python_values;

/// Calls `method` on `value`: the callback for methods that the engine does not know.
///
/// # Errors
/// [`ErrorKind::UnknownMethod`] for a method that is not supported, and others for arguments that
/// Python would refuse.
pub(super) fn call(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let own = match value.as_str() {
        Some(text) => of_string(text, method, arguments)?,
        None => None,
    };
    match own {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// The string methods of our own; `None` for all others.
fn of_string(text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "format" => {
            python_values::check_widths(text)?;
            return Ok(None);
        }
        "title" => {
            let () = from_args(arguments)?;
            title(text).into()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(arguments)?;
            rsplit(text, separator, limit)?
        }
        "split" if arguments.first().and_then(Value::as_str) == Some("") => {
            return Err(empty_separator());
        }
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(arguments)?;
            lines(text, keep_ends.unwrap_or(false))
        }
        "count" => {
            let (part,): (&str,) = from_args(arguments)?;
            // Python too finds the empty text before each character and at the end.
            text.matches(part).count().into()
        }
        "find" => {
            let (part,): (&str,) = from_args(arguments)?;
            character(text, text.find(part))
        }
        "rfind" => {
            let (part,): (&str,) = from_args(arguments)?;
            character(text, text.rfind(part))
        }
        "isdigit" | "isnumeric" | "isalpha" | "isalnum" | "isspace" if text.is_empty() => {
            let () = from_args(arguments)?;
            false.into()
        }
        "islower" => {
            let () = from_args(arguments)?;
            (text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into()
        }
        "isupper" => {
            let () = from_args(arguments)?;
            (text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into()
        }
        _ => return Ok(None),
    }))
}

/// Each word's first letter large, the rest small; a word begins after whatever is no letter.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// `str.rsplit`: at most `limit` splits, counted from the end; a negative limit means all.
fn rsplit(text: &str, separator: Option<&str>, limit: Option<i64>) -> Result<Value, Error> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let pieces = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some("") => return Err(empty_separator()),
        Some(separator) => text.rsplitn(pieces, separator).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end();
            while !rest.is_empty() {
                let space = rest.char_indices().rfind(|(_, c)| c.is_whitespace());
                let (Some((at, c)), true) = (space, parts.len() + 1 < pieces) else {
                    // The first part keeps the whitespace inside it, not that before it.
                    let first = rest.trim_start();
                    parts.extend((!first.is_empty()).then_some(first));
                    break;
                };
                parts.push(&rest[at + c.len_utf8()..]);
                rest = rest[..at].trim_end();
            }
            parts
        }
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `str.splitlines`: at every line boundary that Python knows.
fn lines(text: &str, keep_ends: bool) -> Value {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| ends_line(*c)) {
        let mut end = at + c.len_utf8();
        if c == '\r' && rest[end..].starts_with('\n') {
            end += 1;
        }
        lines.push(Value::from(&rest[..if keep_ends { end } else { at }]));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    lines.into()
}

/// The line boundaries of Python's documentation of `str.splitlines`.
fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// A place in `text` counted in characters, as Python counts, instead of bytes; -1 for none.
fn character(text: &str, byte: Option<usize>) -> Value {
    match byte {
        Some(byte) => text[..byte].chars().count().into(),
        None => (-1).into(),
    }
}

fn empty_separator() -> Error {
    Error::new(ErrorKind::InvalidOperation, "empty separator")
}
