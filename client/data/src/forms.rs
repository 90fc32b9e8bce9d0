//! The forms that members keep records in, and what each field of a record becomes.
//!
//! Two forms are found by their fields' names: a chat (`messages`), a question with its answer
//! under any of the usual pairs of names; `text` alone is plain text. What a form has no place
//! for is a label, or named as left out where it means something to training.

use std::collections::BTreeMap;

use minijinja::Value as JinjaValue;
use serde_json::{Map, Value};

use super::chat::{Chat, Context, REASONING, Turn};
use super::dropped::{Cause, LeftOut, matters_in_record, plain, says_nothing};
use super::json_text::{HALF, is_no_number};
use super::problem::LineProblem;
use super::records::{Content, LONGEST_LABEL, Parsed, PrivateText};
use super::turns;

/// Names of a chat.
pub(super) const CHATS: [&str; 5] = [
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
];
/// Names of a question, the first one present is it.
const QUESTIONS: [&str; 9] = [
    "instruction",
    "question",
    "prompt",
    "query",
    "problem",
    "user",
    "human",
    "instructions",
    "input",
];
/// Names of its answer.
const ANSWERS: [&str; 8] = [
    "output",
    "response",
    "completion",
    "answer",
    "solution",
    "assistant",
    "bot",
    "target",
];
/// Names of what is added to a question.
const EXTRAS: [&str; 2] = ["input", "context"];
/// Names of a system turn beside a question or a chat.
const SYSTEMS: [&str; 6] = [
    "system",
    "system_prompt",
    "system_message",
    "system_instruction",
    "sys_prompt",
    "sysprompt",
];
/// Variables of a rendering that a record may not set.
const RESERVED: [&str; 2] = ["messages", "add_generation_prompt"];

/// A record's fields while they are taken out.
pub(super) struct Fields<'a> {
    object: Map<String, Value>,
    /// The record's JSON, in the order of its keys.
    text: &'a str,
}

impl<'a> Fields<'a> {
    /// The key of the record that `name` stands for, in any spelling.
    fn key(&self, name: &str) -> Option<String> {
        if self.object.contains_key(name) {
            return Some(name.to_owned());
        }
        let name = plain(name);
        self.object.keys().find(|key| plain(key) == name).cloned()
    }

    /// Whether the field is there and says something.
    fn has(&self, name: &str) -> bool {
        let key = self.key(name);
        key.is_some_and(|key| !says_nothing(&self.object[&key]))
    }

    /// Whether the field is there at all.
    fn names(&self, name: &str) -> bool {
        self.key(name).is_some()
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let key = self.key(name)?;
        self.object.remove(&key)
    }

    /// The first of the names that says something, or else is there.
    fn first(&self, names: &[&'static str]) -> Option<&'static str> {
        let found = names.iter().find(|name| self.has(name));
        found
            .or_else(|| names.iter().find(|name| self.names(name)))
            .copied()
    }

    /// A field's value as templates see it, with the keys of objects in the record's order.
    fn ordered(&self, key: &str) -> JinjaValue {
        let record: JinjaValue = serde_json::from_str(self.text).unwrap_or_default();
        record.get_attr(key).unwrap_or_default()
    }

    /// Text that has to be there.
    fn text(&mut self, name: &'static str) -> Result<String, LineProblem> {
        let value = self.take(name).unwrap_or_default();
        turns::text(value, name)
    }

    /// Text that may be missing, null or empty.
    fn optional(&mut self, name: &str) -> Result<Option<String>, LineProblem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(value) if is_no_number(&value) => Ok(None),
            Some(value) => turns::text(value, name).map(Some),
        }
    }
}

/// Takes a record out of a JSON value; `text` is the JSON that it was read from.
pub(super) fn parse_value(value: Value, text: &str) -> Result<Parsed, LineProblem> {
    let Value::Object(object) = value else {
        return Err(LineProblem::NotAnObject {
            found: turns::kind(&value),
        });
    };
    let mut fields = Fields { object, text };
    let mut left_out = Vec::new();
    let content = content(&mut fields, &mut left_out)?;
    for (key, value) in &fields.object {
        if matters_in_record(key) && !says_nothing(value) && !is_repeated(value, &content) {
            left_out.push(LeftOut::new(key.clone(), Cause::NoPlace));
        }
    }
    let labels: BTreeMap<String, String> = fields
        .object
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) if text.len() <= LONGEST_LABEL && !text.contains(HALF) => {
                Some((key, text))
            }
            _ => None,
        })
        .collect();
    Ok(Parsed {
        content,
        labels,
        left_out,
    })
}

/// Whether fields of these names hold a record, of which form it may be.
pub(super) fn is_form<'n>(names: impl Iterator<Item = &'n str>) -> bool {
    let names: Vec<_> = names.map(plain).collect();
    let any = |of: &[&str]| of.iter().any(|name| names.contains(&plain(name)));
    any(&CHATS) || any(&QUESTIONS) && any(&ANSWERS) || any(&["text"])
}

/// The fields of an object in words: those that mean something by name, the others by number.
pub(super) fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let (known, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| matters_in_record(name));
    match (known.is_empty(), others.len()) {
        (true, 0) => "no field".to_owned(),
        (true, 1) => "a field of another name".to_owned(),
        (true, n) => format!("{n} fields of other names"),
        (false, 0) => known.join(" + "),
        (false, 1) => format!("{} and a field of another name", known.join(" + ")),
        (false, n) => format!("{} and {n} fields of other names", known.join(" + ")),
    }
}

/// Whether the record holds a field's text as content already, as where `prompt` repeats the
/// first turn, or `text` the whole of it.
fn is_repeated(value: &Value, content: &Content) -> bool {
    let (Value::String(text), Content::Chat(chat)) = (value, content) else {
        return false;
    };
    let text = text.trim();
    let said = |turn: &&Turn| turn.role != "system";
    chat.iter().any(|turn| turn.content.contains(text))
        || chat
            .iter()
            .filter(said)
            .all(|turn| text.contains(turn.content.trim()))
}

fn content(fields: &mut Fields<'_>, left_out: &mut Vec<LeftOut>) -> Result<Content, LineProblem> {
    let chat = CHATS.into_iter().find(|name| fields.has(name));
    let empty_chat = || CHATS.into_iter().find(|name| fields.names(name));
    let question = fields.first(&QUESTIONS);
    let answer = fields.first(&ANSWERS);
    if fields.names("chosen") && chat.is_none() && answer.is_none() {
        return Err(LineProblem::Preference {
            found: names(fields.object.keys().map(String::as_str)),
        });
    }
    if let Some(name) = chat {
        return messages(fields, name, left_out).map(Content::Chat);
    }
    if let (Some(question), Some(answer)) = (question, answer) {
        return answered(fields, (question, answer), left_out).map(Content::Chat);
    }
    if fields.names("text") {
        return Ok(Content::Text(PrivateText::new(fields.text("text")?)));
    }
    if let Some(name) = empty_chat() {
        return messages(fields, name, left_out).map(Content::Chat);
    }
    Err(LineProblem::Form {
        found: names(fields.object.keys().map(String::as_str)),
    })
}

/// A chat under `name`, with a system turn, tools and variables that stand beside it.
fn messages(
    fields: &mut Fields<'_>,
    name: &'static str,
    left_out: &mut Vec<LeftOut>,
) -> Result<Chat, LineProblem> {
    let key = fields.key(name).unwrap_or_default();
    let value = fields.object.remove(&key).unwrap_or_default();
    let ordered = || fields.ordered(&key);
    let mut turns = turns::messages(value, name, &ordered, left_out)?;
    check_answers(&turns)?;
    if turns.iter().all(|turn| turn.role != "system")
        && let Some(system) = fields.first(&SYSTEMS)
        && let Some(text) = fields.optional(system)?
    {
        turns.insert(0, Turn::new("system", text));
    }
    let context = context(fields)?;
    Ok(Chat { turns, context })
}

/// A question and its answer, with earlier turns, and a system turn before them.
fn answered(
    fields: &mut Fields<'_>,
    (question, answer): (&'static str, &'static str),
    left_out: &mut Vec<LeftOut>,
) -> Result<Chat, LineProblem> {
    let mut turns = Vec::new();
    if let Some(system) = fields.first(&SYSTEMS)
        && let Some(text) = fields.optional(system)?
    {
        turns.push(Turn::new("system", text));
    }
    if fields.has("history") {
        let key = fields.key("history").unwrap_or_default();
        let value = fields.object.remove(&key).unwrap_or_default();
        turns.extend(turns::history(value, &|| fields.ordered(&key), left_out)?);
    }
    // A prompt may be a chat of its own, whose turns are not trained on.
    if fields
        .key(question)
        .is_some_and(|key| fields.object[&key].is_array())
    {
        let key = fields.key(question).unwrap_or_default();
        let value = fields.object.remove(&key).unwrap_or_default();
        let before = turns::messages(value, question, &|| fields.ordered(&key), left_out)?;
        turns.extend(before.into_iter().map(|turn| Turn {
            trained: false,
            ..turn
        }));
    } else {
        let mut asked = match fields.has(question) {
            true => vec![fields.text(question)?],
            // Some keep the whole question in `input`.
            false => Vec::new(),
        };
        for extra in EXTRAS.into_iter().filter(|extra| *extra != question) {
            asked.extend(fields.optional(extra)?);
        }
        if asked.is_empty() {
            return Err(LineProblem::Empty {
                field: question.to_owned(),
            });
        }
        turns.push(Turn::new("user", asked.join("\n\n")));
    }
    if fields
        .key(answer)
        .is_some_and(|key| fields.object[&key].is_array())
    {
        let key = fields.key(answer).unwrap_or_default();
        let value = fields.object.remove(&key).unwrap_or_default();
        turns.extend(turns::messages(
            value,
            answer,
            &|| fields.ordered(&key),
            left_out,
        )?);
    } else {
        let mut last = Turn::new("assistant", fields.text(answer)?);
        if let Some(name) = REASONING.into_iter().find(|name| fields.has(name))
            && let Some(text) = fields.optional(name)?
        {
            last.message = Some(
                [(JinjaValue::from(name), JinjaValue::from(text))]
                    .into_iter()
                    .collect(),
            );
        }
        turns.push(last);
    }
    check_answers(&turns)?;
    let context = context(fields)?;
    Ok(Chat { turns, context })
}

/// Refuses turns none of which is trained on.
fn check_answers(turns: &[Turn]) -> Result<(), LineProblem> {
    let mut answers = turns
        .iter()
        .filter(|turn| turn.role == "assistant")
        .peekable();
    if answers.peek().is_none() {
        return Err(LineProblem::NoAssistant);
    }
    match answers.any(|turn| turn.trained) {
        true => Ok(()),
        false => Err(LineProblem::NoneTrained),
    }
}

/// Tools, documents and the template's variables.
fn context(fields: &mut Fields<'_>) -> Result<Context, LineProblem> {
    let mut variables = Vec::new();
    for name in ["tools", "documents"] {
        if fields.has(name) {
            variables.push((name.to_owned(), inner(fields, name)?));
        }
    }
    // The older name, which lists the functions alone.
    if fields.has("functions") && variables.iter().all(|(name, _)| name != "tools") {
        let functions = inner(fields, "functions")?;
        let tools = functions.try_iter().into_iter().flatten().map(|function| {
            [
                (JinjaValue::from("type"), JinjaValue::from("function")),
                (JinjaValue::from("function"), function),
            ]
            .into_iter()
            .collect::<JinjaValue>()
        });
        variables.push(("tools".to_owned(), tools.collect::<Vec<_>>().into()));
    }
    let variables_here = fields.key("chat_template_kwargs");
    if variables_here.is_some_and(|key| !fields.object[&key].is_null()) {
        let given = inner(fields, "chat_template_kwargs")?;
        for key in given.try_iter().into_iter().flatten() {
            let value = given.get_item(&key).unwrap_or_default();
            if let Some(name) = key.as_str().filter(|name| !RESERVED.contains(name)) {
                variables.push((name.to_owned(), value));
            }
        }
    }
    Ok(Context(variables))
}

/// A list or an object, or text that holds one as JSON: tables and some tools write it so.
fn inner(fields: &mut Fields<'_>, name: &str) -> Result<JinjaValue, LineProblem> {
    let key = fields.key(name).unwrap_or_default();
    let value = fields.ordered(&key);
    match fields.object.remove(&key) {
        Some(Value::String(text)) => turns::json(&text, name),
        Some(Value::Array(_) | Value::Object(_)) => Ok(value),
        other => Err(LineProblem::Kind {
            field: name.to_owned(),
            found: turns::kind(&other.unwrap_or_default()),
            expected: "a list or an object",
        }),
    }
}

#[cfg(test)]
#[path = "forms_tests.rs"]
mod tests;
