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
        "capitalize" => {
            let () = from_args(arguments)?;
            capitalized(text).into()
        }
        "swapcase" => {
            let () = from_args(arguments)?;
            swapped(text).into()
        }
        "casefold" => {
            let () = from_args(arguments)?;
            folded(text).into()
        }
        "partition" | "rpartition" => {
            let (part,): (&str,) = from_args(arguments)?;
            parted(text, part, method == "rpartition")?
        }
        "center" | "ljust" | "rjust" => {
            let (width, fill): (i64, Option<&str>) = from_args(arguments)?;
            padded(text, width, fill.unwrap_or(" "), method)?.into()
        }
        "zfill" => {
            let (width,): (i64,) = from_args(arguments)?;
            let sign = if text.starts_with(['+', '-']) { 1 } else { 0 };
            let width = width.saturating_sub(sign as i64);
            format!(
                "{}{}",
                &text[..sign],
                padded(&text[sign..], width, "0", "rjust")?
            )
            .into()
        }
        "expandtabs" => {
            let (size,): (Option<i64>,) = from_args(arguments)?;
            expanded(text, size.unwrap_or(8))?.into()
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(arguments)?;
            let found = if method == "index" {
                text.find(part)
            } else {
                text.rfind(part)
            };
            if found.is_none() {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "substring not found",
                ));
            }
            character(text, found)
        }
        "isascii" => {
            let () = from_args(arguments)?;
            text.is_ascii().into()
        }
        "istitle" => {
            let () = from_args(arguments)?;
            (text.chars().any(char::is_alphabetic) && title(text) == text).into()
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
            push_title(c, &mut out);
        }
        inside = c.is_alphabetic();
    }
    out
}

/// `str.capitalize`: the first character in title case, the rest small.
pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    chars
        .next()
        .into_iter()
        .for_each(|c| push_title(c, &mut out));
    out.push_str(&chars.as_str().to_lowercase());
    out
}

/// Appends a character in title case (Unicode, SpecialCasing and UnicodeData).
fn push_title(c: char, out: &mut String) {
    match c {
        '\u{1c4}'..='\u{1c6}' => out.push('\u{1c5}'),
        '\u{1c7}'..='\u{1c9}' => out.push('\u{1c8}'),
        '\u{1ca}'..='\u{1cc}' => out.push('\u{1cb}'),
        '\u{1f1}'..='\u{1f3}' => out.push('\u{1f2}'),
        // Georgian has no title case of its own.
        '\u{10d0}'..='\u{10ff}' => out.push(c),
        // Greek letters with an iota below keep it there.
        '\u{1f80}'..='\u{1faf}' => out.extend(char::from_u32(u32::from(c) | 8)),
        '\u{1fb3}' => out.push('\u{1fbc}'),
        '\u{1fc3}' => out.push('\u{1fcc}'),
        '\u{1ff3}' => out.push('\u{1ffc}'),
        c => {
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            upper.for_each(|rest| out.extend(rest.to_lowercase()));
        }
    }
}

/// `str.swapcase`.
fn swapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_uppercase() => out.extend(c.to_lowercase()),
            c if c.is_lowercase() => out.extend(c.to_uppercase()),
            c => out.push(c),
        }
    }
    out
}

/// `str.casefold`: small letters without variants.
fn folded(text: &str) -> String {
    let fold = |c: char| -> String {
        match c {
            // Turkish small i without a dot is a letter of its own.
            '\u{131}' => c.to_string(),
            c => c.to_uppercase().flat_map(char::to_lowercase).collect(),
        }
    };
    text.chars().map(fold).collect()
}

/// `str.partition` and `str.rpartition`.
fn parted(text: &str, part: &str, last: bool) -> Result<Value, Error> {
    if part.is_empty() {
        return Err(empty_separator());
    }
    let found = if last {
        text.rsplit_once(part)
    } else {
        text.split_once(part)
    };
    let parts = match found {
        Some((before, after)) => [before, part, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// `str.center`, `str.ljust` and `str.rjust`; at most 9999 characters wide.
pub(super) fn padded(text: &str, width: i64, fill: &str, method: &str) -> Result<String, Error> {
    let refused = |what: &'static str| Error::new(ErrorKind::InvalidOperation, what);
    if width > 9999 {
        return Err(refused("a width of more than 9999"));
    }
    if fill.chars().count() != 1 {
        return Err(refused(
            "the fill character must be exactly one character long",
        ));
    }
    let width = usize::try_from(width).unwrap_or(0);
    let left = width.saturating_sub(text.chars().count());
    let before = match method {
        "ljust" => 0,
        "rjust" => left,
        // Python's rule for an odd rest.
        _ => left / 2 + (left & width & 1),
    };
    Ok(format!(
        "{}{text}{}",
        fill.repeat(before),
        fill.repeat(left - before)
    ))
}

/// `str.expandtabs`.
fn expanded(text: &str, size: i64) -> Result<String, Error> {
    if size > 9999 {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "a tab of more than 9999",
        ));
    }
    let size = usize::try_from(size).unwrap_or(0);
    let (mut out, mut column) = (String::with_capacity(text.len()), 0_usize);
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = size.saturating_sub(column.checked_rem(size).unwrap_or(0));
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            c => {
                column = if matches!(c, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
                out.push(c);
            }
        }
    }
    Ok(out)
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
