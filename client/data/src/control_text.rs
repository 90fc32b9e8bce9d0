//! The text of control tokens within turns, such as `<s>` in HTML: it stays text, while the
//! template's own control tokens are tokens.
//!
//! In the turns such text is hidden behind code points that no text uses, so that what is left in
//! the rendered chat is the template's. Then the hidden text is written back, and stand-ins take
//! the place of the template's control tokens; a copy of the tokenizer knows the stand-ins, and
//! takes all control tokens for text. Text is cut where it was cut before: at the template's.

use std::collections::HashMap;

use tokenizers::{AddedToken, Tokenizer};

use super::chat::Turn;
use super::responses::Response;

/// Encloses the number of a hidden text.
const HIDDEN: char = '\u{fdd5}';
/// Encloses the number of a stand-in.
const STAND_IN: char = '\u{fdd6}';
/// The code point of the first number: a private plane of 65,534.
const NUMBERS: u32 = 0xf_0000;

/// Token ids, the places of their tokens in the text that they are of, and the responses there.
type Encoded = (Vec<u32>, Vec<(usize, usize)>, Vec<Response>);

/// A tokenizer for chats that hold the text of control tokens.
pub(super) struct PlainTokenizer {
    tokenizer: Tokenizer,
    /// The control tokens' texts, longest first.
    control: Vec<String>,
    /// The control tokens that stand-ins stand for, by the stand-ins' ids.
    ids: HashMap<u32, u32>,
}

impl PlainTokenizer {
    /// A copy of `tokenizer` for the texts of its control tokens.
    pub(super) fn new(tokenizer: &Tokenizer, control: &[String]) -> Self {
        let mut control = control.to_vec();
        control.sort_by_key(|token| std::cmp::Reverse(token.len()));
        let mut copy = tokenizer.clone();
        let known = tokenizer.get_added_tokens_decoder();
        let stand_ins: Vec<AddedToken> = control
            .iter()
            .enumerate()
            .map(|(number, token)| {
                let own = known.values().find(|own| own.content == *token);
                let flag = |flag: fn(&AddedToken) -> bool| own.is_some_and(flag);
                AddedToken::from(enclosed(STAND_IN, number), false)
                    .normalized(false)
                    .lstrip(flag(|own| own.lstrip))
                    .rstrip(flag(|own| own.rstrip))
            })
            .collect();
        copy.add_tokens(&stand_ins);
        copy.set_encode_special_tokens(true);
        let ids = stand_ins
            .iter()
            .zip(&control)
            .filter_map(|(stand_in, token)| {
                Some((
                    copy.token_to_id(&stand_in.content)?,
                    tokenizer.token_to_id(token)?,
                ))
            });
        let ids = ids.collect();
        Self {
            tokenizer: copy,
            control,
            ids,
        }
    }

    /// The turns with the text of control tokens hidden.
    pub(super) fn hidden(&self, turns: &[Turn]) -> Vec<Turn> {
        let hide = |text: &str| {
            let mut text = text.to_owned();
            for (number, token) in self.control.iter().enumerate() {
                if text.contains(token) {
                    text = text.replace(token, &enclosed(HIDDEN, number));
                }
            }
            text
        };
        let turns = turns.iter();
        turns
            .map(|turn| turn.saying(hide(&turn.content), turn.written))
            .collect()
    }

    /// A rendered text with the hidden text written back.
    pub(super) fn shown(&self, rendered: &str) -> String {
        let mut text = rendered.to_owned();
        for (number, token) in self.control.iter().enumerate() {
            let hidden = enclosed(HIDDEN, number);
            if text.contains(&hidden) {
                text = text.replace(&hidden, token);
            }
        }
        text
    }

    /// The tokens of a text that the template made of [`hidden`](Self::hidden) turns.
    pub(super) fn encode(&self, rendered: &str, found: &[Response]) -> Option<Encoded> {
        let mut text = String::with_capacity(rendered.len());
        // Where each piece begins, before and after.
        let mut places = vec![(0, 0)];
        let mut at = 0;
        while let Some(c) = rendered[at..].chars().next() {
            let rest = &rendered[at..];
            let hidden = self.hidden_at(rest);
            let own = || {
                self.control
                    .iter()
                    .position(|token| rest.starts_with(token))
            };
            let length = if let Some((number, length)) = hidden {
                text.push_str(&self.control[number]);
                length
            } else if let Some(number) = own() {
                text.push_str(&enclosed(STAND_IN, number));
                self.control[number].len()
            } else {
                text.push(c);
                c.len_utf8()
            };
            at += length;
            places.push((at, text.len()));
        }
        let moved = |place: usize| {
            let index = places.partition_point(|(before, _)| *before < place);
            places.get(index).map_or(text.len(), |(_, after)| *after)
        };
        let found = found.iter().map(|response| Response {
            text: moved(response.text.start)..moved(response.text.end),
            words_end: moved(response.words_end),
            marked: response.marked,
        });
        let found = found.collect();
        let encoding = self.tokenizer.encode(text.as_str(), false).ok()?;
        let ids = encoding.get_ids().iter();
        let ids = ids
            .map(|id| self.ids.get(id).copied().unwrap_or(*id))
            .collect();
        Some((ids, encoding.get_offsets().to_vec(), found))
    }

    /// The hidden text that begins here: its number, and its length in the rendered text.
    fn hidden_at(&self, rest: &str) -> Option<(usize, usize)> {
        let mut chars = rest.strip_prefix(HIDDEN)?.chars();
        let number = u32::from(chars.next()?).checked_sub(NUMBERS)? as usize;
        let ends = chars.next() == Some(HIDDEN) && number < self.control.len();
        ends.then(|| (number, enclosed(HIDDEN, number).len()))
    }
}

/// A number as a private code point, enclosed in a mark.
fn enclosed(mark: char, number: usize) -> String {
    let number = u32::try_from(number)
        .ok()
        .and_then(|number| char::from_u32(NUMBERS + number));
    String::from_iter([mark, number.unwrap_or(mark), mark])
}
