//! A record as a question: the turns before the assistant's last, with that turn as reference.

use std::fmt;

use fedlora_data::{Chat, Content, Dataset, Record, Turn};

use crate::remedy::Remedy;

/// A record's prompt and its reference response. `Debug` shows neither.
#[derive(Clone)]
pub struct Question {
    turns: Chat,
    reference: String,
    place: String,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({}, {} turns)", self.place, self.turns.len())
    }
}

impl Question {
    /// A question for each record.
    ///
    /// # Errors
    /// [`QuestionError`] for the first record without a response at its end.
    pub fn of_records(records: &Dataset) -> Result<Vec<Self>, QuestionError> {
        records.records().iter().map(Self::of).collect()
    }

    fn of(record: &Record) -> Result<Self, QuestionError> {
        let place = record.place().to_string();
        let Content::Chat(turns) = record.content() else {
            return Err(QuestionError::Text { place });
        };
        match turns.split_last() {
            Some((last, before)) if last.role == "assistant" => Ok(Self {
                turns: turns.with_turns(before.to_vec()),
                reference: last.content.clone(),
                place,
            }),
            _ => Err(QuestionError::NoResponse { place }),
        }
    }

    /// The turns before the response.
    pub fn turns(&self) -> &Chat {
        &self.turns
    }

    /// The turns with `response` as the assistant's last.
    pub fn answered(&self, response: &str) -> Chat {
        let mut chat = self.turns.clone();
        chat.turns.push(Turn::new("assistant", response));
        chat
    }

    /// The reference: the response in the record.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// File and line of the record.
    pub fn place(&self) -> &str {
        &self.place
    }
}

/// A record without a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The record is plain text.
    #[error(
        "{place}: a record of plain text has no response to compare with: give chat, Alpaca or \
         Dolly records"
    )]
    Text {
        /// File and line of the record.
        place: String,
    },
    /// The record is a chat that the assistant does not end.
    #[error(
        "{place}: the last turn is not the assistant's, so that there is no response to compare \
         with: end the chat with one"
    )]
    NoResponse {
        /// File and line of the record.
        place: String,
    },
}

impl QuestionError {
    /// What a caller can change: the loss needs no response.
    pub fn remedy(&self) -> Option<Remedy> {
        Some(Remedy::LossOnly)
    }
}
