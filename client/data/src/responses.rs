//! Where the assistant's turns stand in a rendered chat, and what of a record it does not show.
//!
//! Three ways, the first that applies: the template's own `{% generation %}` marks; what the
//! template adds between the prompt for a turn and the turn's end; and a second rendering in which
//! a sentinel stands for the turn's words, for templates that change earlier turns when later
//! ones follow.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::Value;

use super::chat::{ChatRef, REASONING, Turn, Written};
use super::dropped::{Cause, LeftOut, matters_in_message};
use super::problem::LineProblem;
use super::template::{ChatTemplate, TemplateError};

/// Stands for a turn's words: code points that no text uses.
const SENTINEL: &str = "\u{fdd3}\u{fdd4}\u{fdd3}";
/// How a thought ends in the text of the models that write theirs out.
const END_OF_THOUGHT: &str = "</think>";

/// An assistant's turn in a rendered chat, in bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// All that the template puts there for the turn.
    pub text: Range<usize>,
    /// Where the turn's own words end in it; its beginning where the template changes them.
    pub words_end: usize,
    /// Whether the template marks it itself: every token that it touches counts.
    pub marked: bool,
}

/// A rendered chat with the turns that are trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responses {
    /// The whole text.
    pub text: String,
    /// The assistant's turns in it, in order.
    pub found: Vec<Response>,
    /// Turns to train on that cannot be told from the rest.
    pub missed: usize,
}

/// Renders a chat and finds the assistant's turns in it.
///
/// # Errors
/// [`TemplateError::NoTurn`] where no turn can be found, and what rendering gives.
pub(super) fn find(template: &ChatTemplate, chat: ChatRef<'_>) -> Result<Responses, TemplateError> {
    let (text, marks) = template.render_marked(chat)?;
    let assistants = chat.turns.iter().filter(|turn| turn.role == "assistant");
    if !marks.is_empty() {
        let untrained: Vec<_> = assistants.clone().map(|turn| !turn.trained).collect();
        let of_turns = untrained.len() == marks.len();
        let left_out = |index: usize, mark: &Range<usize>| match of_turns {
            true => untrained[index],
            false => assistants.clone().any(|turn| {
                let said = turn.content.trim();
                !turn.trained && !said.is_empty() && text[mark.clone()].contains(said)
            }),
        };
        let found = marks.iter().enumerate();
        let found = found
            .filter(|(index, mark)| !left_out(*index, mark))
            .map(|(_, mark)| Response {
                text: mark.clone(),
                words_end: mark.end,
                marked: true,
            })
            .collect();
        let missed = 0;
        return Ok(Responses {
            text,
            found,
            missed,
        });
    }
    let (mut found, mut missed, mut first) = (Vec::new(), 0, 0);
    for (index, turn) in chat.turns.iter().enumerate() {
        if turn.role != "assistant" || !turn.trained {
            continue;
        }
        let here = by_prefix(template, chat, &text, index)
            .or_else(|| by_sentinel(template, chat, &text, index));
        match here {
            Some(response) => found.push(response),
            None => {
                first = if missed == 0 { index + 1 } else { first };
                missed += 1;
            }
        }
    }
    if found.is_empty() && missed > 0 {
        return Err(TemplateError::NoTurn { turn: first });
    }
    Ok(Responses {
        text,
        found,
        missed,
    })
}

/// The turn where the template's turns only add text: behind the prompt for it, or behind as
/// much of the prompt as the turn begins with.
fn by_prefix(
    template: &ChatTemplate,
    chat: ChatRef<'_>,
    text: &str,
    index: usize,
) -> Option<Response> {
    let render = |end, prompt| {
        let turns = &chat.turns[..end];
        template.render(ChatRef { turns, ..chat }, prompt).ok()
    };
    let asked = render(index, true)?;
    let through = render(index + 1, false)?;
    if !text.starts_with(&through) {
        return None;
    }
    let words = words(
        &chat.turns[index],
        &through,
        common_prefix(&asked, &through),
    );
    let start = if through.starts_with(&asked) {
        asked.len()
    } else {
        // The prompt opens something that the turn does not hold, such as a thought.
        let before = render(index, false)?;
        let common = common_prefix(&asked, &through);
        if !through.starts_with(&before) || common < before.len() {
            return None;
        }
        words
            .as_ref()
            .map_or(common, |words| words.start.clamp(before.len(), common))
    };
    let words_end = words.map_or(start, |words| words.end.max(start));
    if start == through.len() && !chat.turns[index].content.trim().is_empty() {
        return None;
    }
    Some(Response {
        text: start..through.len(),
        words_end,
        marked: false,
    })
}

/// The turn's words in `text`, looked for at `from` first and then in all that the turn may add.
fn words(turn: &Turn, text: &str, from: usize) -> Option<Range<usize>> {
    let said = turn.content.trim();
    let answer = said.rsplit(END_OF_THOUGHT).next().unwrap_or(said).trim();
    [said, answer]
        .into_iter()
        .filter(|said| !said.is_empty())
        .find_map(|said| {
            // The template may show the beginning of the words as part of its prompt.
            let earliest = from.saturating_sub(said.len());
            let earliest = (earliest..=from).find(|at| text.is_char_boundary(*at))?;
            let start = earliest + text[earliest..].find(said)?;
            Some(start..start + said.len())
        })
}

/// The turn where the template changes what stands before it: a sentinel in place of its words
/// shows what surrounds them.
fn by_sentinel(
    template: &ChatTemplate,
    chat: ChatRef<'_>,
    text: &str,
    index: usize,
) -> Option<Response> {
    let own = &chat.turns[index];
    let thought = own
        .content
        .rfind(END_OF_THOUGHT)
        .map(|at| at + END_OF_THOUGHT.len());
    let replacements = [
        Some(SENTINEL.to_owned()),
        thought.map(|at| format!("{}\n\n{SENTINEL}", &own.content[..at])),
    ];
    replacements.into_iter().flatten().find_map(|content| {
        let mut turns = chat.turns.to_vec();
        turns[index] = own.saying(content, Written::Text);
        let of = |end, prompt| {
            let turns = &turns[..end];
            template.render(ChatRef { turns, ..chat }, prompt).ok()
        };
        let whole = of(turns.len(), false)?;
        let (before, after) = around(&whole)?;
        let fits = text.starts_with(before)
            && text.ends_with(after)
            && before.len() + after.len() <= text.len();
        if !fits {
            return None;
        }
        let words_end = text.len() - after.len();
        // What the template puts behind the turn where it is the last: its end.
        let last = of(index + 1, false);
        let tail = last
            .as_deref()
            .and_then(around)
            .map_or("", |(_, tail)| tail);
        let end = words_end + common_prefix(tail, &text[words_end..]);
        // Spaces before the words are theirs, unless they end the prompt for the turn.
        let asked = of(index, true).unwrap_or_default();
        let bare = of(index, false).unwrap_or_default();
        let prompt = asked.strip_prefix(bare.as_str()).unwrap_or_default();
        let start = match !prompt.is_empty() && before.ends_with(prompt) {
            true => before.len(),
            false => before.trim_end_matches(' ').len(),
        };
        Some(Response {
            text: start..end,
            words_end,
            marked: false,
        })
    })
}

/// What surrounds the sentinel, where it stands there exactly once.
fn around(text: &str) -> Option<(&str, &str)> {
    let (before, after) = text.split_once(SENTINEL)?;
    (!after.contains(SENTINEL)).then_some((before, after))
}

/// Bytes that two texts begin with alike, in whole characters.
fn common_prefix(one: &str, other: &str) -> usize {
    let pairs = one.char_indices().zip(other.chars());
    let differ = pairs.clone().find(|((_, a), b)| a != b);
    match differ {
        Some(((at, _), _)) => at,
        None => one.len().min(other.len()),
    }
}

/// What of a chat the rendered text does not show.
///
/// # Errors
/// [`LineProblem::CallAlone`] for a turn that has nothing else.
pub(super) fn left_out(
    template: &ChatTemplate,
    chat: ChatRef<'_>,
    text: &str,
) -> Result<Vec<LeftOut>, LineProblem> {
    let mut lost = Vec::new();
    let shown = Shown::of(text);
    for turn in chat.turns {
        if shown.holds(&turn.content) {
            continue;
        }
        let answer = turn
            .content
            .rsplit_once(END_OF_THOUGHT)
            .map(|(_, answer)| answer);
        let cause = match (turn.role, answer) {
            ("assistant", Some(answer)) if shown.holds(answer) => Cause::Thought,
            (role, _) => Cause::Turn { role },
        };
        lost.push(LeftOut::new("content", cause));
    }
    let render = |turns: &[Turn]| template.render(ChatRef { turns, ..chat }, false).ok();
    let same = |turns: &[Turn]| render(turns).is_some_and(|without| without == text);
    let keys: BTreeSet<String> = chat.turns.iter().flat_map(Turn::keys).collect();
    for key in keys {
        let told = |turn: &&Turn| turn.value(&key).is_some_and(|value| !is_nothing(&value));
        if !matters_in_message(&key) || !chat.turns.iter().any(|turn| told(&turn)) {
            continue;
        }
        let without: Vec<_> = chat.turns.iter().map(|turn| turn.without(&key)).collect();
        let none = same(&without);
        let calls = key == "tool_calls" || key == "function_call";
        if calls {
            for (index, turn) in chat.turns.iter().enumerate() {
                if !told(&turn) || !turn.content.trim().is_empty() {
                    continue;
                }
                let mut turns = chat.turns.to_vec();
                turns[index] = turn.without(&key);
                if none || same(&turns) {
                    return Err(LineProblem::CallAlone {
                        turn: index + 1,
                        field: key,
                    });
                }
            }
        }
        if none {
            lost.push(LeftOut::new(key, Cause::NotShown));
            continue;
        }
        let hidden = |turn: &Turn| {
            let value = turn.value(&key);
            value.is_some_and(|value| value.as_str().is_some_and(|text| !shown.holds(text)))
        };
        if REASONING.contains(&key.as_str()) && chat.turns.iter().any(hidden) {
            lost.push(LeftOut::new(key, Cause::PartlyShown));
        }
    }
    let context = chat.context.map_or(&[][..], |context| &context.0);
    for (name, _) in context {
        let of_kind = matches!(name.as_str(), "tools" | "documents");
        let hidden = if of_kind {
            let without = chat.context.map(|context| context.without(name));
            let chat = ChatRef {
                turns: chat.turns,
                context: without.as_ref(),
            };
            template
                .render(chat, false)
                .is_ok_and(|without| without == text)
        } else {
            !template.names(name)
        };
        if hidden {
            lost.push(LeftOut::new(name, Cause::NotShown));
        }
    }
    Ok(lost)
}

/// Whether a value of a message says nothing.
fn is_nothing(value: &Value) -> bool {
    !value.is_true() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// A rendered text to look for others in; white space makes no difference.
struct Shown(String);

impl Shown {
    fn of(text: &str) -> Self {
        Self(text.chars().filter(|c| !c.is_whitespace()).collect())
    }

    /// Whether a text is shown whole, as it is or within JSON.
    fn holds(&self, text: &str) -> bool {
        let plain = Self::of(text).0;
        if self.0.contains(&plain) {
            return true;
        }
        let json = Value::from(text).to_string();
        let json = serde_json::to_string(&json).unwrap_or_default();
        let bare = json.trim_matches('"');
        // Escaped line ends are white space too.
        let bare = bare
            .replace("\\n", "")
            .replace("\\t", "")
            .replace("\\r", "");
        let shown = self
            .0
            .replace("\\n", "")
            .replace("\\t", "")
            .replace("\\r", "");
        shown.contains(&Self::of(&bare).0)
    }
}

#[cfg(test)]
#[path = "responses_tests.rs"]
mod tests;
