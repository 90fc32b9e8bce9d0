//! Stop texts, found across the pieces of a generated text.

use std::str::FromStr;

/// A text that ends a generated text; at least one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopText(String);

impl FromStr for StopText {
    type Err = StopTextError;

    fn from_str(text: &str) -> Result<Self, StopTextError> {
        if text.is_empty() {
            return Err(StopTextError);
        }
        Ok(Self(text.to_owned()))
    }
}

/// An empty stop text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an empty stop text would end every text at once: give at least one character")]
pub struct StopTextError;

/// Holds back the end of a text while it may become a stop text.
pub(crate) struct HeldText<'a> {
    stops: &'a [StopText],
    waiting: String,
}

impl<'a> HeldText<'a> {
    pub(crate) fn new(stops: &'a [StopText]) -> Self {
        Self {
            stops,
            waiting: String::new(),
        }
    }

    /// Adds a piece. Returns the text that is released, and whether a stop text follows it.
    pub(crate) fn push(&mut self, piece: &str) -> (String, bool) {
        self.waiting.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.waiting.find(&stop.0))
            .min();
        if let Some(end) = found {
            self.waiting.truncate(end);
            return (std::mem::take(&mut self.waiting), true);
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| overlap(&self.waiting, &stop.0))
            .max()
            .unwrap_or(0);
        let rest = self.waiting.split_off(self.waiting.len() - keep);
        (std::mem::replace(&mut self.waiting, rest), false)
    }

    /// The text still held when no piece follows.
    pub(crate) fn rest(self) -> String {
        self.waiting
    }
}

/// Bytes of the longest end of `text` that begins `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    stop.char_indices()
        .map(|(at, _)| at)
        .filter(|&length| length > 0 && text.ends_with(&stop[..length]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<StopText> = stops.iter().map(|stop| stop.parse().unwrap()).collect();
        let mut held = HeldText::new(&stops);
        let mut all = String::new();
        for piece in pieces {
            let (text, stopped) = held.push(piece);
            all.push_str(&text);
            if stopped {
                return (all, true);
            }
        }
        all.push_str(&held.rest());
        (all, false)
    }

    #[test]
    fn a_stop_text_is_found_across_pieces_and_left_out() {
        let stopped = |text: &str| (text.to_owned(), true);
        assert_eq!(pieces(&["END"], &["one E", "N", "D two"]), stopped("one "));
        assert_eq!(pieces(&["END"], &["EENDX"]), stopped("E"));
        assert_eq!(pieces(&["b", "ab"], &["xab"]), stopped("x"));
        assert_eq!(pieces(&["é!"], &["caf", "é", "!"]), stopped("caf"));
        assert_eq!(pieces(&["aab"], &["a", "a", "a", "b"]), stopped("a"));
    }

    #[test]
    fn what_only_begins_like_one_is_kept() {
        let whole = |text: &str| (text.to_owned(), false);
        assert_eq!(pieces(&["END"], &["EN", "ding ", "EN"]), whole("ENding EN"));
        assert_eq!(pieces(&["é!"], &["é", "?"]), whole("é?"));
        assert_eq!(pieces(&[], &["a", "b"]), whole("ab"));
        assert!("".parse::<StopText>().is_err());
    }

    #[test]
    fn what_cannot_be_one_is_not_held_back() {
        let stops = ["END".parse().unwrap()];
        let mut held = HeldText::new(&stops);
        assert_eq!(held.push("no end"), ("no end".to_owned(), false));
        assert_eq!(held.push("E"), (String::new(), false));
        assert_eq!(held.push("x"), ("Ex".to_owned(), false));
    }
}
