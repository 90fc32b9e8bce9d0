//! What Hugging Face's chat templates expect of Jinja beyond the language: Python's string
//! and dict methods, `raise_exception`, `strftime_now`, and the `generation` tags.

use std::io::{self, Write};

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Steps that one rendering may take. A template is code from elsewhere.
const FUEL: u64 = 5_000_000;

/// An environment as Transformers sets it up.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_method);
    environment.add_filter("tojson", json);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", |format: String| pinned_date(&format));
    environment
}

/// Turns `{% generation %}`, which marks the assistant's text and prints nothing, into a
/// block that Jinja knows.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, after) = rest.split_at(start + 2);
        let Some(length) = after.find("%}") else {
            break;
        };
        let tag = &after[..length];
        out.push_str(before);
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = &after[length + 2..];
    }
    out.push_str(rest);
    out
}

/// Transformers' own `tojson`: Python's `json.dumps` with non-ASCII text as it is and nothing
/// escaped for HTML.
fn json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = vec![b' '; width.min(16)];
            let format = PrettyFormatter::with_indent(&indent);
            value.serialize(&mut Serializer::with_formatter(&mut out, format))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    };
    let refused = || Error::new(ErrorKind::BadSerialization, "not to be written as JSON");
    written.map_err(|_| refused())?;
    String::from_utf8(out)
        .map(Value::from)
        .map_err(|_| refused())
}

/// JSON on one line with a space after each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// The date that Llama's own template falls back to. A template that shows the date must not
/// make tomorrow's tokens differ from today's, or one member's from another's.
fn pinned_date(format: &str) -> String {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("26"),
            Some('m') => out.push_str("07"),
            Some('b') => out.push_str("Jul"),
            Some('B') => out.push_str("July"),
            Some('Y') => out.push_str("2024"),
            Some('y') => out.push_str("24"),
            Some('a') => out.push_str("Fri"),
            Some('A') => out.push_str("Friday"),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some(other) => out.push(other),
            None => out.push('%'),
        }
    }
    out
}

fn python_method(
    _: &State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    if value.kind() == ValueKind::Map {
        return map_method(value, method, arguments).ok_or_else(unknown);
    }
    let text = value.as_str().ok_or_else(unknown)?;
    let argument = |index: usize| arguments.get(index).and_then(Value::as_str);
    let set = |c: char| argument(0).map_or(c.is_whitespace(), |set| set.contains(c));
    Ok(match method {
        "strip" => text.trim_matches(set).into(),
        "lstrip" => text.trim_start_matches(set).into(),
        "rstrip" => text.trim_end_matches(set).into(),
        "lower" => text.to_lowercase().into(),
        "upper" => text.to_uppercase().into(),
        "title" => title(text).into(),
        "startswith" => text.starts_with(argument(0).ok_or_else(unknown)?).into(),
        "endswith" => text.ends_with(argument(0).ok_or_else(unknown)?).into(),
        "replace" => {
            let (from, to) = argument(0).zip(argument(1)).ok_or_else(unknown)?;
            text.replace(from, to).into()
        }
        "split" => match argument(0) {
            Some("") => return Err(unknown()),
            Some(separator) => text.split(separator).map(Value::from).collect(),
            None => text.split_whitespace().map(Value::from).collect(),
        },
        _ => return Err(unknown()),
    })
}

fn map_method(map: &Value, method: &str, arguments: &[Value]) -> Option<Value> {
    let keys = || map.try_iter().ok();
    Some(match method {
        "get" => {
            let found = map.get_item(arguments.first()?).ok()?;
            if found.is_undefined() {
                arguments.get(1).cloned().unwrap_or_else(|| ().into())
            } else {
                found
            }
        }
        "keys" => keys()?.collect(),
        "values" => keys()?
            .map(|key| map.get_item(&key).unwrap_or_default())
            .collect(),
        "items" => keys()?
            .map(|key| {
                let value = map.get_item(&key).unwrap_or_default();
                Value::from(vec![key, value])
            })
            .collect(),
        _ => return None,
    })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        let source = without_generation_tags(source);
        environment().render_str(
            &source,
            minijinja::context! { m => minijinja::context! { a => 1 } },
        )
    }

    #[test]
    fn python_methods_work_in_templates() {
        let cases = [
            ("{{ ' x '.strip() }}|{{ 'xay'.strip('xy') }}", "x|a"),
            (
                "{{ 'a b'.split() | length }}{{ 'a,b'.split(',')[1] }}",
                "2b",
            ),
            (
                "{{ 'ab'.startswith('a') }} {{ 'ab'.endswith('a') }}",
                "True False",
            ),
            (
                "{{ 'ab'.replace('b', 'c').upper() }} {{ 'to be'.title() }}",
                "AC To Be",
            ),
            (
                "{{ m.get('a') }}{{ m.get('b', 2) }}{{ m.get('b') is none }}",
                "12True",
            ),
            (
                "{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}",
                "a=1",
            ),
            ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
            ("{%- generation -%} x {%- endgeneration -%} y", "xy"),
            ("{% set x = '%' %}{{ x }}{{ '{' ~ '%}' }}", "%{%}"),
        ];
        for (source, expected) in cases {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn unknown_methods_raised_errors_and_endless_loops_end() {
        assert!(render("{{ 'x'.format() }}").is_err());
        assert!(render("{{ raise_exception('no') }}").is_err());
        assert!(
            render("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}")
                .is_err()
        );
    }
}
