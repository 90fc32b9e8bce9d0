//! How Python prints values: `str` and `repr`, the operators `%` and `~`, and bounds on what
//! a template may ask of them. The engine's own `Display` writes floats and the strings inside
//! lists as Rust does.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, FormatStyle, State, Value, format_filter};

/// Largest text, in bytes, that one operator may make.
const MAX_TEXT: usize = 64 << 20;
/// Most digits of a width or a precision, so at most 9999 characters of padding.
const MAX_WIDTH_DIGITS: usize = 4;
/// Most values that are printed of one list or dictionary with all that it holds.
const MAX_VALUES: usize = 1 << 20;
/// Deepest nesting that is printed.
const MAX_DEPTH: usize = 64;

/// The value as Python's `str` gives it, with nothing for an undefined one.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for a list or dictionary of more than 2^20 values or
/// 64 MiB of text.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => printed(value),
    }
}

/// The operator `~`, with all operands of a chain at once.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for a text of more than 64 MiB.
pub(super) fn concatenate(parts: Rest<Value>) -> Result<Value, Error> {
    let mut out = String::new();
    for part in parts.iter() {
        push(&mut out, &text(part)?)?;
    }
    Ok(out.into())
}

/// The operator `%`: a string formats the right operand, a number has Python's modulo, whose
/// sign is the divisor's.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for operands that Python refuses and for a width of more
/// than 9999.
pub(super) fn percent(left: Value, right: Value) -> Result<Value, Error> {
    if let Some(format) = left.as_str() {
        let arguments = match right.kind() {
            ValueKind::Seq => right.try_iter()?.collect(),
            _ => vec![right],
        };
        return printf(format, arguments).map(Value::from);
    }
    let integer = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    if let (Some(left), Some(right)) = (integer(&left), integer(&right)) {
        let rest = left
            .checked_rem(right)
            .ok_or_else(|| refused("modulo by zero"))?;
        let other_sign = rest != 0 && (rest < 0) != (right < 0);
        return Ok(Value::from(if other_sign { rest + right } else { rest }));
    }
    let float = |value: Value| {
        f64::try_from(value).map_err(|_| refused("% takes two numbers, or a string on its left"))
    };
    let (left, right) = (float(left)?, float(right)?);
    if right == 0.0 {
        return Err(refused("modulo by zero"));
    }
    let rest = left % right;
    let other_sign = rest != 0.0 && (rest < 0.0) != (right < 0.0);
    Ok(Value::from(if other_sign { rest + right } else { rest }))
}

/// The filter `format`: `'%s' | format(x)`.
///
/// # Errors
/// What [`percent`] gives.
pub(super) fn format(format: &str, arguments: Rest<Value>) -> Result<String, Error> {
    printf(format, arguments.0)
}

/// Refuses a format of `str.format` whose widths are out of bounds.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for a width of more than 9999.
pub(super) fn check_widths(format: &str) -> Result<(), Error> {
    let mut spec = false;
    let mut digits = 0;
    for c in format.chars() {
        match c {
            ':' => spec = true,
            '{' | '}' => spec = false,
            _ => {}
        }
        digits = if spec && c.is_ascii_digit() {
            digits + 1
        } else {
            0
        };
        if digits > MAX_WIDTH_DIGITS {
            return Err(too_wide());
        }
    }
    Ok(())
}

/// The filter `join`, with Jinja2's `attribute`.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for what has no items, and for a text of more than 64 MiB.
pub(super) fn join(
    value: Value,
    separator: Option<String>,
    options: Kwargs,
) -> Result<String, Error> {
    let separator = match separator {
        Some(separator) => separator,
        None => options.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    let attribute: Option<String> = options.get("attribute")?;
    options.assert_all_used()?;
    let mut out = String::new();
    if value.is_undefined() {
        return Ok(out);
    }
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            push(&mut out, &separator)?;
        }
        let item = match &attribute {
            None => item,
            Some(path) => path
                .split('.')
                .try_fold(item, |item, name| item.get_attr(name))?,
        };
        push(&mut out, &text(&item)?)?;
    }
    Ok(out)
}

/// The filter `indent`, at most 9999 columns wide.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for a larger width.
pub(super) fn indent(
    state: &State<'_, '_>,
    value: Value,
    arguments: Rest<Value>,
) -> Result<Value, Error> {
    let wide = |value: &Value| value.as_i64().is_some_and(|width| width > 9999);
    let named = |value: &Value| {
        value.is_kwargs() && value.get_attr("width").is_ok_and(|width| wide(&width))
    };
    if arguments.iter().any(|value| wide(value) || named(value)) {
        return Err(too_wide());
    }
    let mut all = vec![value];
    all.extend(arguments.0);
    // The engine's own filter, which a second name keeps.
    state.apply_filter(ENGINES_INDENT, &all)
}

/// The test `sequence`: whatever has a length and items by key, strings and dictionaries too.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined
    )
}

/// The test `iterable`.
pub(super) fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.try_iter().is_ok()
}

/// The test `number`: Python's booleans are numbers.
pub(super) fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// The filter `int`: the default, 0 unless given, for what is no number.
///
/// # Errors
/// Those of unknown arguments.
pub(super) fn int(value: &Value, default: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let default = or_option(default, &options, Value::from(0))?;
    if let Some(number) = value
        .as_str()
        .and_then(|text| text.trim().parse::<i64>().ok())
    {
        return Ok(number.into());
    }
    match as_float(value) {
        Some(_) if value.is_integer() => Ok(value.clone()),
        Some(number) if number.abs() < 1e18 => Ok(Value::from(number.trunc() as i64)),
        _ => Ok(default),
    }
}

/// The filter `float`: the default, 0.0 unless given, for what is no number.
///
/// # Errors
/// Those of unknown arguments.
pub(super) fn to_float(
    value: &Value,
    default: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let default = or_option(default, &options, Value::from(0.0))?;
    Ok(as_float(value).map_or(default, Value::from))
}

/// The filter `round`: half to even, as Python rounds.
///
/// # Errors
/// [`ErrorKind::InvalidOperation`] for what is no number, another method than `common`, `ceil`
/// and `floor`, and more than 300 digits.
pub(super) fn round(
    value: &Value,
    precision: Option<i32>,
    method: Option<String>,
    options: Kwargs,
) -> Result<Value, Error> {
    let precision = precision.or(options.get("precision")?).unwrap_or(0);
    let method = method.or(options.get("method")?);
    options.assert_all_used()?;
    let number = f64::try_from(value.clone()).map_err(|_| refused("not a number to round"))?;
    let digits = usize::try_from(precision)
        .ok()
        .filter(|digits| *digits <= 300);
    let digits = digits.ok_or_else(|| refused("a precision of 0 to 300 digits"))?;
    let scale = 10_f64.powi(precision);
    Ok(match method.as_deref().unwrap_or("common") {
        "common" if value.is_integer() => value.clone(),
        "common" => format!("{number:.digits$}")
            .parse()
            .map_or(number, |it: f64| it)
            .into(),
        "ceil" => ((number * scale).ceil() / scale).into(),
        "floor" => ((number * scale).floor() / scale).into(),
        _ => return Err(refused("a method of rounding is common, ceil or floor")),
    })
}

fn or_option(given: Option<Value>, options: &Kwargs, otherwise: Value) -> Result<Value, Error> {
    let named: Option<Value> = options.get("default")?;
    options.assert_all_used()?;
    Ok(given.or(named).unwrap_or(otherwise))
}

fn as_float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::String => value.as_str()?.trim().parse().ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// The name under which the environment keeps the engine's `indent`.
pub(super) const ENGINES_INDENT: &str = "__indent";

/// Formats in C's style. Each value of an `%s` or `%r` is printed first, as Python prints it.
fn printf(format: &str, mut arguments: Vec<Value>) -> Result<String, Error> {
    let mut plain = String::with_capacity(format.len());
    let mut rest = format;
    let mut used = 0;
    let mut named = false;
    while let Some(start) = rest.find('%') {
        let (before, spec) = rest.split_at(start + 1);
        plain.push_str(before);
        let name = spec.strip_prefix('(').and_then(|text| text.find(')'));
        let from = name.map_or(0, |length| length + 2);
        let length = spec[from..]
            .find(|c: char| c.is_alphabetic() || c == '%')
            .ok_or_else(|| refused("incomplete format"))?;
        let flags = &spec[from..from + length];
        let mut runs = flags.split(|c: char| !c.is_ascii_digit());
        if runs.any(|digits| digits.len() > MAX_WIDTH_DIGITS) {
            return Err(too_wide());
        }
        if flags.contains('*') {
            return Err(refused("a width given as '*' is not supported"));
        }
        plain.push_str(&spec[..from + length]);
        let conversion = &spec[from + length..];
        let letter = conversion.chars().next().unwrap_or('%');
        rest = &conversion[letter.len_utf8()..];
        plain.push(if letter == 'r' { 's' } else { letter });
        named |= name.is_some();
        if letter == '%' || name.is_some() {
            continue;
        }
        let value = arguments
            .get_mut(used)
            .ok_or_else(|| refused("not enough arguments for format string"))?;
        used += 1;
        match letter {
            's' => *value = text(value)?.into(),
            'r' => *value = printed(value)?.into(),
            _ => {}
        }
    }
    plain.push_str(rest);
    let mapping = matches!(arguments.as_slice(), [value] if value.kind() == ValueKind::Map);
    if used < arguments.len() && !named && !mapping {
        return Err(refused(
            "not all arguments converted during string formatting",
        ));
    }
    format_filter(FormatStyle::Printf, &plain, &arguments)
}

fn printed(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    let mut left = MAX_VALUES;
    repr(value, &mut out, 0, &mut left);
    if left == 0 || out.len() > MAX_TEXT {
        return Err(too_large());
    }
    Ok(out)
}

/// Appends Python's `repr`. Stops where the text has become too large, which `printed` refuses.
fn repr(value: &Value, out: &mut String, depth: usize, left: &mut usize) {
    *left = left.saturating_sub(1);
    if *left == 0 || out.len() > MAX_TEXT {
        return;
    }
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => out.push_str(&value.to_string()),
        },
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            out.push('[');
            for (index, item) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&item, out, depth + 1, left);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&key, out, depth + 1, left);
                out.push_str(": ");
                let item = value.get_item(&key).unwrap_or_default();
                repr(&item, out, depth + 1, left);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// `float.__repr__`: the fewest digits that read back, with an exponent from 1e16 on and
/// below 1e-4.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let shortest = format!("{number:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number:?}")
}

/// `str.__repr__`: in single quotes, unless the text has those and no double ones.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&match u32::from(c) {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}

/// `str.isprintable` for one character. Rust's escapes follow the same categories of Unicode,
/// but escape a combining mark too where it comes first.
fn is_printable(c: char) -> bool {
    let after_another = String::from_iter(['a', c]);
    !c.is_control() && !after_another.escape_debug().to_string().contains("\\u{")
}

fn push(out: &mut String, text: &str) -> Result<(), Error> {
    if out.len() + text.len() > MAX_TEXT {
        return Err(too_large());
    }
    out.push_str(text);
    Ok(())
}

fn too_large() -> Error {
    refused("the text is larger than 64 MiB")
}

fn too_wide() -> Error {
    refused("a width of more than 9999")
}

fn refused(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
