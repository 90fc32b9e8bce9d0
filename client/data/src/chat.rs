//! A chat as templates see it: turns with their own keys, and what a record gives beside them.

use std::fmt;
use std::ops::Deref;

use fedlora_common::digest::DigestWriter;
use minijinja::Value;

/// Keys of the reasoning before an answer, which the assistant's message keeps; some templates show it in
/// the last turns only.
pub(crate) const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// Whether a turn's content stands in its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Written {
    /// As text.
    #[default]
    Text,
    /// As null, as beside tool calls.
    Null,
    /// Not at all.
    Missing,
}

/// One turn of a chat.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'static str,
    /// What was said. Private.
    pub content: String,
    /// Whether an assistant's turn is trained on.
    pub trained: bool,
    /// The role as the record has it, where that is another name for `role`.
    pub(crate) alias: Option<&'static str>,
    pub(crate) written: Written,
    /// The whole message, where it has more keys than role and content, in the record's order.
    pub(crate) message: Option<Value>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({}, {} bytes)", self.role, self.content.len())
    }
}

impl Turn {
    /// A turn of a role and a text, and nothing else.
    pub fn new(role: &'static str, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            trained: true,
            alias: None,
            written: Written::Text,
            message: None,
        }
    }

    /// The keys of the message beside role and content.
    pub(crate) fn keys(&self) -> Vec<String> {
        let Some(message) = &self.message else {
            return Vec::new();
        };
        let keys = message.try_iter().into_iter().flatten();
        keys.filter_map(|key| key.as_str().map(str::to_owned))
            .filter(|key| key != "role" && key != "content")
            .collect()
    }

    /// The value of one of [`keys`](Self::keys).
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        let value = self.message.as_ref()?.get_attr(key).ok()?;
        (!value.is_undefined()).then_some(value)
    }

    /// The same turn without a key of its message.
    pub(crate) fn without(&self, key: &str) -> Self {
        let mut turn = self.clone();
        let kept = self.keys().into_iter().filter(|kept| kept != key);
        let kept: Vec<_> = kept.collect();
        turn.message = (!kept.is_empty()).then(|| {
            let pairs = self.message.iter().flat_map(|message| {
                let keys = message.try_iter().into_iter().flatten();
                keys.filter(|one| one.as_str() != Some(key))
                    .map(|one| (one.clone(), message.get_item(&one).unwrap_or_default()))
            });
            pairs.collect()
        });
        turn
    }

    /// The same turn with another content, or another kind of none.
    pub(crate) fn saying(&self, content: impl Into<String>, written: Written) -> Self {
        Self {
            content: content.into(),
            written,
            ..self.clone()
        }
    }
}

/// What a record gives to the template beside its turns: `tools`, `documents`, and the variables
/// of `chat_template_kwargs`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Context(pub(crate) Vec<(String, Value)>);

impl Context {
    /// The same without one of its variables.
    pub(crate) fn without(&self, name: &str) -> Self {
        let kept = self.0.iter().filter(|(own, _)| own != name);
        Self(kept.cloned().collect())
    }
}

/// Turns, of which the assistant's are trained on, and their context.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Chat {
    /// The turns, in order.
    pub turns: Vec<Turn>,
    /// What the template gets beside them.
    pub context: Context,
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.turns).finish()
    }
}

impl Deref for Chat {
    type Target = [Turn];

    fn deref(&self) -> &[Turn] {
        &self.turns
    }
}

impl Chat {
    /// The same context with other turns.
    pub fn with_turns(&self, turns: Vec<Turn>) -> Self {
        Self {
            turns,
            context: self.context.clone(),
        }
    }

    /// Adds all of the chat to a digest. Turns of role and content alone add nothing more.
    pub(super) fn digest(&self, writer: &mut DigestWriter) {
        writer.number(self.turns.len() as u64);
        for turn in &self.turns {
            writer.bytes(turn.role.as_bytes());
            writer.bytes(turn.content.as_bytes());
            if let Some(message) = &turn.message {
                writer.bytes(message.to_string().as_bytes());
            }
            if !turn.trained {
                writer.bytes(b"not trained on");
            }
        }
        for (name, value) in &self.context.0 {
            writer.bytes(name.as_bytes());
            writer.bytes(value.to_string().as_bytes());
        }
    }
}

/// A borrowed chat: turns alone, or with their context.
#[derive(Clone, Copy)]
pub struct ChatRef<'a> {
    pub(super) turns: &'a [Turn],
    pub(super) context: Option<&'a Context>,
}

impl<'a> From<&'a Chat> for ChatRef<'a> {
    fn from(chat: &'a Chat) -> Self {
        Self {
            turns: &chat.turns,
            context: Some(&chat.context),
        }
    }
}

impl<'a> From<&'a [Turn]> for ChatRef<'a> {
    fn from(turns: &'a [Turn]) -> Self {
        Self {
            turns,
            context: None,
        }
    }
}

impl<'a> From<&'a Vec<Turn>> for ChatRef<'a> {
    fn from(turns: &'a Vec<Turn>) -> Self {
        turns.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [Turn; N]> for ChatRef<'a> {
    fn from(turns: &'a [Turn; N]) -> Self {
        turns.as_slice().into()
    }
}
