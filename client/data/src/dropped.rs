//! What of the records training leaves out, counted by field: nothing goes without a word.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::json_text::is_no_number;

/// Keys of a record that mean something to training by a convention of the field, without case,
/// spaces and underscores. All other keys are labels, which stay free and unnamed.
const OF_RECORDS: [&str; 66] = [
    "answer",
    "answers",
    "assistant",
    "audio",
    "audios",
    "bot",
    "chainofthought",
    "chattemplatekwargs",
    "chosen",
    "completion",
    "context",
    "conversation",
    "conversations",
    "cot",
    "demonstrations",
    "dialog",
    "dialogue",
    "documents",
    "enablethinking",
    "examples",
    "fewshot",
    "functioncall",
    "functions",
    "history",
    "human",
    "image",
    "images",
    "input",
    "instruction",
    "instructions",
    "knowledge",
    "loss",
    "lossmask",
    "masked",
    "messages",
    "observation",
    "observations",
    "output",
    "persona",
    "problem",
    "prompt",
    "query",
    "question",
    "rationale",
    "reasoning",
    "reasoningcontent",
    "rejected",
    "response",
    "solution",
    "sysprompt",
    "system",
    "systeminstruction",
    "systemmessage",
    "systemprompt",
    "target",
    "text",
    "thinking",
    "thought",
    "thoughts",
    "toolcalls",
    "tools",
    "train",
    "training",
    "user",
    "video",
    "weight",
];
/// The same of a message beside its role and content.
const OF_MESSAGES: [&str; 33] = [
    "audio",
    "chainofthought",
    "citations",
    "context",
    "cot",
    "documents",
    "functioncall",
    "functions",
    "image",
    "images",
    "loss",
    "lossmask",
    "masked",
    "name",
    "observation",
    "observations",
    "prefix",
    "rationale",
    "reasoning",
    "reasoningcontent",
    "reasoningdetails",
    "refusal",
    "text",
    "thinking",
    "thought",
    "thoughts",
    "toolcalls",
    "toolresults",
    "tools",
    "train",
    "traindetail",
    "training",
    "weight",
];

/// A key as the lists above have it: case, spaces, hyphens and underscores make no difference.
pub(super) fn plain(key: &str) -> String {
    key.chars()
        .filter(|c| !matches!(c, '_' | '-' | ' '))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Whether a record's key means something to training.
pub(super) fn matters_in_record(key: &str) -> bool {
    OF_RECORDS.contains(&plain(key).as_str())
}

/// Whether a message's key means something to training.
pub(super) fn matters_in_message(key: &str) -> bool {
    OF_MESSAGES.contains(&plain(key).as_str())
}

/// Whether a value says nothing: nothing is lost with it.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(map) => map.values().all(says_nothing),
        Value::Bool(true) => false,
        Value::Number(_) => is_no_number(value),
    }
}

/// Why something of a record is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The form has no place for the field.
    NoPlace,
    /// A Parquet column of another type than text.
    Column,
    /// The chat template does not show it.
    NotShown,
    /// The chat template shows it in some turns only.
    PartlyShown,
    /// The chat template cuts thoughts out of the assistant's text.
    Thought,
    /// The chat template cuts or changes the text of turns.
    Turn {
        /// The turns' role.
        role: &'static str,
    },
    /// An assistant's turn that cannot be told from the rest of the text.
    NotFound,
    /// A weight other than 0 and 1.
    Weight,
    /// A mark to train on a turn that is not the assistant's.
    OtherRole,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPlace => "records of this form have no place for it: left out",
            Self::Column => "the Parquet column holds no text: not read",
            Self::NotShown => "the chat template does not show it: left out",
            Self::PartlyShown => "the chat template shows it in some turns only",
            Self::Thought => {
                "the chat template cuts the thoughts (up to </think>) from the assistant's text"
            }
            Self::Turn { role } => {
                return write!(
                    f,
                    "the chat template leaves out or changes text of turns with the role {role}"
                );
            }
            Self::NotFound => {
                "an assistant's turn cannot be told from the rest of the text: not trained on"
            }
            Self::Weight => "a weight other than 0 and 1 counts as 1",
            Self::OtherRole => "only the assistant's turns are trained on",
        })
    }
}

/// Something that is left out of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// The key of the record or of its messages.
    pub field: String,
    /// Why it is left out.
    pub cause: Cause,
}

impl LeftOut {
    pub(super) fn new(field: impl Into<String>, cause: Cause) -> Self {
        Self {
            field: field.into(),
            cause,
        }
    }
}

/// Something that is left out of records, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The key of the records or of their messages.
    pub field: String,
    /// How many records lose something so.
    pub records: usize,
    /// What is lost, and why.
    pub what: String,
}

impl Dropped {
    /// The counts of two sets of records together.
    pub fn merged(mut one: Vec<Self>, other: Vec<Self>) -> Vec<Self> {
        for dropped in other {
            let same = |own: &&mut Self| own.field == dropped.field && own.what == dropped.what;
            match one.iter_mut().find(same) {
                Some(own) => own.records += dropped.records,
                None => one.push(dropped),
            }
        }
        one
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = match self.records {
            1 => "1 record".to_owned(),
            count => format!("{count} records"),
        };
        write!(f, "'{}' of {records}: {}", self.field, self.what)
    }
}

/// Counts what is left out, each kind once a record.
#[derive(Debug, Default)]
pub(super) struct DropCounts(BTreeMap<LeftOut, usize>);

impl DropCounts {
    /// Counts one record.
    pub(super) fn add<'a>(&mut self, record: impl IntoIterator<Item = &'a LeftOut>) {
        let unique: std::collections::BTreeSet<_> = record.into_iter().collect();
        for left_out in unique {
            *self.0.entry(left_out.clone()).or_default() += 1;
        }
    }

    pub(super) fn counted(self) -> Vec<Dropped> {
        let counted = self.0.into_iter();
        counted
            .map(|(left_out, records)| Dropped {
                field: left_out.field,
                records,
                what: left_out.cause.to_string(),
            })
            .collect()
    }
}

/// Something that its owner should know before training.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Warning {
    /// What kind it is, for programs.
    pub kind: &'static str,
    /// A sentence for people.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_in_any_spelling_and_labels_are_free() {
        for key in [
            "system_prompt",
            "systemPrompt",
            "System Prompt",
            "Tool-Calls",
            "weight",
        ] {
            assert!(matters_in_record(key), "{key}");
        }
        for key in [
            "name",
            "id",
            "label",
            "source",
            "category",
            "split",
            "institution",
        ] {
            assert!(!matters_in_record(key), "{key}");
        }
        assert!(matters_in_message("name") && !matters_in_message("tool_call_id"));
        assert!(OF_RECORDS.is_sorted() && OF_MESSAGES.is_sorted());
    }

    #[test]
    fn a_record_counts_once_for_each_thing_that_it_loses() {
        let lost = |field: &str| LeftOut::new(field, Cause::NotShown);
        let mut drops = DropCounts::default();
        drops.add(&[lost("name"), lost("name"), lost("tools")]);
        drops.add(&[lost("name")]);
        let counted: Vec<_> = drops
            .counted()
            .into_iter()
            .map(|dropped| (dropped.field, dropped.records))
            .collect();
        assert_eq!(counted, [("name".to_owned(), 2), ("tools".to_owned(), 1)]);
    }
}
