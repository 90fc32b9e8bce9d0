//! The turns of a chat: roles under their usual names, contents in their usual shapes, and the
//! keys beside them.

use minijinja::Value as JinjaValue;
use serde_json::{Map, Value};

use super::chat::{Turn, Written};
use super::dropped::{Cause, LeftOut, matters_in_message, plain, says_nothing};
use super::json_text::{HALF, is_no_number};
use super::problem::LineProblem;

/// What roles are called, and which of the four that templates know they are.
const ROLES: [(&str, &str); 20] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("human", "user"),
    ("prompter", "user"),
    ("assistant", "assistant"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("model", "assistant"),
    ("bot", "assistant"),
    ("ai", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("functioncall", "assistant"),
    ("tool", "tool"),
    ("function", "tool"),
    ("ipython", "tool"),
    ("observation", "tool"),
    ("toolresponse", "tool"),
    ("functionresponse", "tool"),
];
/// Keys that say whether a turn is trained on.
const WEIGHTS: [&str; 3] = ["weight", "train", "training"];

/// A message in the record's own order of keys, where it is needed.
type Ordered<'a> = &'a dyn Fn() -> JinjaValue;

/// Reads a list of messages, or text that holds one as JSON; `name` is the list's field.
pub(super) fn messages(
    value: Value,
    name: &str,
    ordered: Ordered<'_>,
    left_out: &mut Vec<LeftOut>,
) -> Result<Vec<Turn>, LineProblem> {
    let expected = "an array of {\"role\", \"content\"} objects";
    let inner;
    let (messages, ordered): (_, Ordered<'_>) = match value {
        Value::Array(messages) => (messages, ordered),
        Value::String(text) if text.trim_start().starts_with('[') => {
            let field = || LineProblem::InnerJson {
                field: name.to_owned(),
            };
            let messages = serde_json::from_str(&text).map_err(|_| field())?;
            inner = move || serde_json::from_str(&text).unwrap_or_default();
            (messages, &inner)
        }
        other => {
            return Err(LineProblem::Kind {
                field: name.to_owned(),
                found: kind(&other),
                expected,
            });
        }
    };
    let mut turns = Vec::with_capacity(messages.len());
    let mut all: Option<JinjaValue> = None;
    for (index, message) in messages.into_iter().enumerate() {
        let place = format!("{name}[{index}]");
        let Value::Object(message) = message else {
            return Err(LineProblem::Kind {
                field: place,
                found: kind(&message),
                expected: "a {\"role\", \"content\"} object",
            });
        };
        let whole = || {
            let all = all.get_or_insert_with(ordered);
            all.get_item_by_index(index).unwrap_or_default()
        };
        turns.extend(turn(message, &place, whole, left_out)?);
    }
    Ok(turns)
}

/// One message. A system turn without text is as if it were not there.
fn turn(
    mut message: Map<String, Value>,
    place: &str,
    whole: impl FnOnce() -> JinjaValue,
    left_out: &mut Vec<LeftOut>,
) -> Result<Option<Turn>, LineProblem> {
    let role_key = ["role", "from"]
        .into_iter()
        .find(|key| message.contains_key(*key));
    let role_key = role_key.unwrap_or("role");
    let field = format!("{place}.{role_key}");
    let said = text(message.remove(role_key).unwrap_or_default(), &field)?;
    let known = ROLES.into_iter().find(|(name, _)| *name == plain(&said));
    let Some((alias, role)) = known else {
        return Err(LineProblem::Role { field });
    };
    let content_key = ["content", "value"]
        .into_iter()
        .find(|key| message.contains_key(*key));
    let content_key = content_key.unwrap_or("content");
    let field = format!("{place}.{content_key}");
    let (mut text, mut written) = match message.remove(content_key) {
        None => (String::new(), Written::Missing),
        Some(Value::Null) => (String::new(), Written::Null),
        Some(value) => (contents(value, &field)?, Written::Text),
    };
    let mut turn = Turn::new(role, "");
    turn.alias = (alias != role).then_some(alias);
    trained(&mut message, &mut turn, left_out);
    message.retain(|_, value| !says_nothing(value));
    let mut given = whole();
    if alias == "functioncall" {
        // The turn is the call itself, as JSON.
        given = call(&text, &field)?;
        (text, written) = (String::new(), Written::Missing);
        turn.alias = None;
        message.insert("tool_calls".to_owned(), Value::Bool(true));
    }
    let acts = ["tool_calls", "function_call"]
        .iter()
        .any(|key| message.contains_key(*key));
    if text.trim().is_empty() && !acts {
        return match (role, written) {
            ("system", _) => Ok(None),
            ("tool", Written::Text) => Ok(Some(Turn {
                message: kept(&given, place)?,
                ..turn
            })),
            (_, Written::Text) => Err(LineProblem::Empty { field }),
            _ => Err(LineProblem::Kind {
                field,
                found: kind(&Value::Null),
                expected: "text",
            }),
        };
    }
    turn.content = text;
    turn.written = written;
    turn.message = kept(&given, place)?;
    Ok(Some(turn))
}

/// The whole message in the record's order, where it has keys beside role and content. Keys that
/// say nothing stay: a template may ask whether they are there.
fn kept(given: &JinjaValue, place: &str) -> Result<Option<JinjaValue>, LineProblem> {
    let (mut pairs, mut more) = (Vec::new(), false);
    for key in given.try_iter().into_iter().flatten() {
        let Some(name) = key.as_str() else { continue };
        let mut value = given.get_item(&key).unwrap_or_default();
        match name {
            "role" | "content" => {}
            "from" | "value" => continue,
            _ => {
                more = true;
                let field = || format!("{place}.{name}");
                if name == "tool_calls"
                    && let Some(text) = value.as_str().filter(|text| !text.trim().is_empty())
                {
                    value = json(text, &field())?;
                }
                if matters_in_message(name) && value.to_string().contains(HALF) {
                    return Err(LineProblem::HalfCharacter { field: field() });
                }
            }
        }
        pairs.push((key, value));
    }
    Ok(more.then(|| pairs.into_iter().collect()))
}

/// Whether the turn is trained on, as the usual keys say.
fn trained(message: &mut Map<String, Value>, turn: &mut Turn, left_out: &mut Vec<LeftOut>) {
    for key in WEIGHTS {
        let Some(value) = message.remove(key) else {
            continue;
        };
        if value.is_null() || is_no_number(&value) {
            continue;
        }
        let weight = match &value {
            Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
            other => other.as_f64(),
        };
        match (turn.role, weight) {
            ("assistant", Some(0.0)) => turn.trained = false,
            ("assistant", Some(1.0)) | (_, Some(0.0)) => {}
            ("assistant", _) => left_out.push(LeftOut::new(key, Cause::Weight)),
            _ => left_out.push(LeftOut::new(key, Cause::OtherRole)),
        }
    }
}

/// A content: text, or parts of text, which follow each other.
fn contents(value: Value, field: &str) -> Result<String, LineProblem> {
    let parts = match value {
        Value::Array(parts) => parts,
        other => return plain_text(other, field),
    };
    let mut joined = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let field = format!("{field}[{index}]");
        match part {
            Value::String(text) => joined.push_str(&plain_text(Value::String(text), &field)?),
            Value::Object(mut part) => {
                let of_text = match part.get("type") {
                    None => true,
                    Some(kind) => ["text", "input_text", "output_text"]
                        .iter()
                        .any(|t| kind == t),
                };
                match part.remove("text") {
                    Some(text @ Value::String(_)) if of_text => {
                        joined.push_str(&plain_text(text, &field)?);
                    }
                    _ => return Err(LineProblem::Part { field }),
                }
            }
            _ => return Err(LineProblem::Part { field }),
        }
    }
    Ok(joined)
}

/// Earlier turns beside a question: pairs of question and answer, or messages.
pub(super) fn history(
    value: Value,
    ordered: Ordered<'_>,
    left_out: &mut Vec<LeftOut>,
) -> Result<Vec<Turn>, LineProblem> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|_| LineProblem::InnerJson {
            field: "history".to_owned(),
        })?,
        value => value,
    };
    let Value::Array(items) = value else {
        return Err(LineProblem::Kind {
            field: "history".to_owned(),
            found: kind(&value),
            expected: "a list of [question, answer] pairs, or of messages",
        });
    };
    let of_messages = |item: &Value| item.get("role").or_else(|| item.get("from")).is_some();
    if items.iter().all(of_messages) {
        return messages(Value::Array(items), "history", ordered, left_out);
    }
    let mut turns = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let field = format!("history[{index}]");
        let pair: [Value; 2] = match item {
            Value::Array(pair) if pair.len() == 2 => {
                let mut pair = pair.into_iter();
                [
                    pair.next().unwrap_or_default(),
                    pair.next().unwrap_or_default(),
                ]
            }
            other => {
                return Err(LineProblem::Kind {
                    field,
                    found: kind(&other),
                    expected: "a [question, answer] pair, or a message",
                });
            }
        };
        for (role, said) in ["user", "assistant"].into_iter().zip(pair) {
            turns.push(Turn::new(role, text(said, &field)?));
        }
    }
    Ok(turns)
}

/// A message that calls functions, of a turn that is the calls as JSON.
fn call(text: &str, field: &str) -> Result<JinjaValue, LineProblem> {
    let given = json(text, field)?;
    let calls = match given.kind() {
        minijinja::value::ValueKind::Seq => given.try_iter().into_iter().flatten().collect(),
        _ => vec![given],
    };
    let calls: Vec<JinjaValue> = calls
        .into_iter()
        .map(|function| {
            let pairs = [
                (JinjaValue::from("type"), JinjaValue::from("function")),
                (JinjaValue::from("function"), function),
            ];
            pairs.into_iter().collect()
        })
        .collect();
    let pairs = [
        (JinjaValue::from("role"), JinjaValue::from("assistant")),
        (JinjaValue::from("tool_calls"), calls.into()),
    ];
    Ok(pairs.into_iter().collect())
}

/// What a text holds as JSON: a list or an object, its keys in their order.
pub(super) fn json(text: &str, field: &str) -> Result<JinjaValue, LineProblem> {
    let refused = || LineProblem::InnerJson {
        field: field.to_owned(),
    };
    if !text.trim_start().starts_with(['[', '{']) {
        return Err(refused());
    }
    serde_json::from_str(text).map_err(|_| refused())
}

/// Text that has to say something.
pub(super) fn text(value: Value, field: &str) -> Result<String, LineProblem> {
    let text = plain_text(value, field)?;
    if text.trim().is_empty() {
        return Err(LineProblem::Empty {
            field: field.to_owned(),
        });
    }
    Ok(text)
}

/// Text, perhaps empty.
fn plain_text(value: Value, field: &str) -> Result<String, LineProblem> {
    let field = || field.to_owned();
    match value {
        value if is_no_number(&value) => Err(LineProblem::NotANumber { field: field() }),
        Value::String(text) if text.contains(HALF) => {
            Err(LineProblem::HalfCharacter { field: field() })
        }
        Value::String(text) => Ok(text),
        other => Err(LineProblem::Kind {
            field: field(),
            found: kind(&other),
            expected: "text",
        }),
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null or missing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
