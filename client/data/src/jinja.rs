//! The Jinja environment that Hugging Face's chat templates expect, as
//! `transformers.utils.chat_template_utils` sets it up: whitespace and loop controls, Python's
//! methods, its `tojson`, `raise_exception`, `strftime_now`, and the `generation` tags.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::Serialize as _;
use serde_json::ser::{Formatter, Serializer};

use super::{python_methods, python_values, template_source};

/// Steps that one rendering may take. A template is code from elsewhere.
const FUEL: u64 = 5_000_000;
/// Most spaces a level of indented JSON.
const MAX_INDENT: usize = 16;

/// Stand before and behind what `{% generation %}` marks: code points that no text uses.
pub(super) const GENERATED: [char; 2] = ['\u{fdd1}', '\u{fdd2}'];

/// An environment as Transformers sets it up.
pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_methods::call);
    environment.set_formatter(|out, _, value| {
        out.write_str(&python_values::text(value)?)
            .map_err(Error::from)
    });
    environment.add_filter("tojson", json);
    environment.add_filter("string", python_values::text);
    environment.add_filter("capitalize", |value: Value| {
        python_values::text(&value).map(|text| python_methods::capitalized(&text))
    });
    for name in ["e", "escape"] {
        environment.add_filter(name, |value: Value| {
            python_values::text(&value).map(|text| escaped_markup(&text))
        });
    }
    environment.add_filter("urlencode", |value: Value| {
        python_values::text(&value).map(|text| url_encoded(&text))
    });
    environment.add_filter("truncate", truncated);
    environment.add_filter("center", |value: Value, width: Option<i64>| {
        let text = python_values::text(&value)?;
        python_methods::padded(&text, width.unwrap_or(80), " ", "center")
    });
    environment.add_filter("wordcount", |value: Value| {
        let text = python_values::text(&value)?;
        // Jinja2 counts runs of letters, digits and underscores.
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        Ok::<_, Error>(words.filter(|word| !word.is_empty()).count())
    });
    environment.add_filter("join", python_values::join);
    environment.add_filter("format", python_values::format);
    environment.add_filter("indent", python_values::indent);
    environment.add_filter(python_values::ENGINES_INDENT, minijinja::filters::indent);
    environment.add_filter("int", python_values::int);
    environment.add_filter("float", python_values::to_float);
    environment.add_filter("round", python_values::round);
    environment.add_filter(template_source::GENERATION, |text: String| {
        let [begin, end] = GENERATED;
        format!("{begin}{text}{end}")
    });
    environment.add_test("sequence", python_values::is_sequence);
    environment.add_test("iterable", python_values::is_iterable);
    environment.add_test("number", python_values::is_number);
    environment.add_function(template_source::PERCENT, python_values::percent);
    environment.add_function(template_source::CONCATENATE, python_values::concatenate);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_function("strftime_now", |format: String| pinned_date(&format));
    environment
}

/// Transformers' own `tojson`: Python's `json.dumps` with `ensure_ascii` off unless asked for,
/// nothing escaped for HTML, and the arguments `indent`, `separators` and `sort_keys`.
fn json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sorted: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let refused = |what: &'static str| Error::new(ErrorKind::BadSerialization, what);
    let comma = if indent.is_some() { "," } else { ", " };
    let (comma, colon) = match separators.as_deref() {
        None => (comma.to_owned(), ": ".to_owned()),
        Some([comma, colon]) => (comma.clone(), colon.clone()),
        Some(_) => return Err(refused("separators are two texts")),
    };
    let mut style = PythonStyle {
        comma,
        colon,
        indent: indent.map(|width| width.min(MAX_INDENT)),
        depth: 0,
        filled: false,
    };
    let mut out = Vec::new();
    let value = if sorted == Some(true) {
        sort_keys(&value)
    } else {
        value
    };
    value
        .serialize(&mut Serializer::with_formatter(&mut out, &mut style))
        .map_err(|_| refused("not to be written as JSON"))?;
    let text = String::from_utf8(out).map_err(|_| refused("not to be written as JSON"))?;
    Ok(if ascii == Some(true) {
        escaped(&text).into()
    } else {
        text.into()
    })
}

/// MarkupSafe's `escape`.
fn escaped_markup(text: &str) -> String {
    let pairs = [
        ("&", "&amp;"),
        (">", "&gt;"),
        ("<", "&lt;"),
        ("'", "&#39;"),
        ("\"", "&#34;"),
    ];
    let text = text.to_owned();
    pairs
        .iter()
        .fold(text, |text, (plain, code)| text.replace(plain, code))
}

/// Jinja2's `urlencode` of a text: `urllib.parse.quote`, with slashes left as they are.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Jinja2's `truncate`: at `length` characters with the ending, if it is more than `leeway` longer.
fn truncated(value: Value, arguments: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let text = python_values::text(&value)?;
    let given = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = options.get(name)?;
        Ok(arguments.get(at).cloned().or(named))
    };
    let count = |value: Option<Value>, default: usize| value.map_or(Ok(default), usize::try_from);
    let length = count(given(0, "length")?, 255)?;
    let kill_words = given(1, "killwords")?.is_some_and(|value| value.is_true());
    let end = given(2, "end")?.map_or(Ok("...".to_owned()), |end| python_values::text(&end))?;
    let leeway = count(given(3, "leeway")?, 5)?;
    options.assert_all_used()?;
    let ending = end.chars().count();
    if length < ending {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "truncate: shorter than its ending",
        ));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let kept: String = text.chars().take(length - ending).collect();
    let kept = match kill_words {
        true => kept.as_str(),
        false => kept
            .rsplit_once(' ')
            .map_or(kept.as_str(), |(before, _)| before),
    };
    Ok(format!("{kept}{end}"))
}

/// The value with the keys of every dictionary in ascending order.
fn sort_keys(value: &Value) -> Value {
    let Ok(items) = value.try_iter() else {
        return value.clone();
    };
    match value.kind() {
        ValueKind::Map => {
            let mut keys: Vec<Value> = items.collect();
            keys.sort();
            keys.into_iter()
                .map(|key| {
                    let item = value.get_item(&key).unwrap_or_default();
                    (key, sort_keys(&item))
                })
                .collect()
        }
        ValueKind::Seq => items
            .map(|item| sort_keys(&item))
            .collect::<Vec<_>>()
            .into(),
        _ => value.clone(),
    }
}

/// JSON's text in ASCII, the rest as `\\uXXXX`, in pairs beyond 16 bits. Only strings hold any.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// How `json.dumps` puts separators and line ends.
struct PythonStyle {
    comma: String,
    colon: String,
    /// Spaces a level; `None` puts all on one line.
    indent: Option<usize>,
    depth: usize,
    /// Whether the array or object that ends next holds anything.
    filled: bool,
}

impl PythonStyle {
    fn open<W: Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn item<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.comma.as_bytes())?;
        }
        self.line_end(out)
    }

    fn close<W: Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line_end(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn line_end<W: Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(width) => write!(out, "\n{:1$}", "", width * self.depth),
            None => Ok(()),
        }
    }
}

impl Formatter for &mut PythonStyle {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.colon.as_bytes())
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
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
        let code = match chars.next() {
            // Without the zeros before a number.
            Some('-') => chars.next().map(|code| match code {
                'm' => '7',
                'H' | 'M' | 'S' => '0',
                other => other,
            }),
            code => code,
        };
        match code {
            Some(digit @ ('7' | '0')) => out.push(digit),
            Some('d') => out.push_str("26"),
            Some('m') => out.push_str("07"),
            Some('b') => out.push_str("Jul"),
            Some('B') => out.push_str("July"),
            Some('Y') => out.push_str("2024"),
            Some('y') => out.push_str("24"),
            Some('a') => out.push_str("Fri"),
            Some('A') => out.push_str("Friday"),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some('I') => out.push_str("12"),
            Some('p') => out.push_str("AM"),
            Some('j') => out.push_str("208"),
            Some('F') => out.push_str("2024-07-26"),
            Some('T') => out.push_str("00:00:00"),
            Some(other) => out.push(other),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, Error> {
        environment()
            .render_str(
                &template_source::prepared(source),
                minijinja::context! { m => minijinja::context! { a => 1 } },
            )
            .map(|text| text.replace(GENERATED, ""))
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
        assert!(render("{{ 'x'.encode() }}").is_err());
        assert!(render("{{ '{}'.format() }}").is_err());
        assert!(render("{{ raise_exception('no') }}").is_err());
        assert!(render("{{ '%99999d' % 1 }}{{ '%*d' % (99999, 1) }}").is_err());
        assert!(render("{{ '%99999d' | format(1) }}").is_err());
        assert!(render("{{ '{:>99999}'.format(1) }}").is_err());
        assert!(render("{{ 'x' | indent(99999, true) }}").is_err());
        assert!(render("{{ 'x' | indent(width=99999, first=true) }}").is_err());
        assert!(
            render(
                "{% set n = namespace(x='xxxxxxxx') %}{% for a in range(40) %}\
                 {% set n.x = n.x ~ n.x %}{% endfor %}"
            )
            .is_err()
        );
        assert!(
            render(
                "{% set n = namespace(x=[]) %}{% for a in range(40) %}\
                 {% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
            )
            .is_err()
        );
        assert!(
            render("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}")
                .is_err()
        );
    }

    /// Supported by Jinja2 and refused here.
    const REFUSED: [&str; 2] = ["{{ 2 ** -1 }}", "{{ '{!r}'.format('x') }}"];

    #[derive(serde::Deserialize)]
    struct JinjaGolden {
        messages: Vec<GoldenMessage>,
        cases: Vec<JinjaCase>,
    }

    /// Its fields in this order, as templates see them.
    #[derive(serde::Deserialize, serde::Serialize)]
    struct GoldenMessage {
        role: String,
        content: String,
    }

    #[derive(serde::Deserialize)]
    struct JinjaCase {
        template: String,
        /// `None` where Jinja2 refuses the template.
        rendered: Option<String>,
    }

    #[test]
    fn expressions_render_as_in_jinja2() {
        let golden: JinjaGolden =
            serde_json::from_str(include_str!("../../vectors/jinja.json")).unwrap();
        let messages = Value::from_serialize(&golden.messages);
        let mut wrong = Vec::new();
        for JinjaCase { template, rendered } in golden.cases {
            let context = minijinja::context! { messages };
            let ours = environment()
                .render_str(&template_source::prepared(&template), context)
                .ok();
            let expected = rendered.filter(|_| !REFUSED.contains(&template.as_str()));
            if ours != expected {
                wrong.push(format!("{template}\n  {expected:?}\n  {ours:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
