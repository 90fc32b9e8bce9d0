//! A record as a question with its reference: all turns before the assistant's last, and that.

use std::fmt;

use fedlora_data::{Content, Dataset, Record, Turn};

/// A record's prompt and the response that it should have.
#[derive(Clone)]
pub struct Question {
    turns: Vec<Turn>,
    reference: String,
    place: String,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Question({}, {} turns)", self.place, self.turns.len())
    }
}

impl Question {
    /// One for each record.
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
                turns: before.to_vec(),
                reference: last.content.clone(),
                place,
            }),
            _ => Err(QuestionError::NoResponse { place }),
        }
    }

    /// The turns before the response.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The turns with `response` as the assistant's last.
    pub fn answered(&self, response: &str) -> Vec<Turn> {
        let mut turns = self.turns.clone();
        turns.push(Turn {
            role: "assistant",
            content: response.to_owned(),
        });
        turns
    }

    /// The response that stands in the record.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Where the record stands.
    pub fn place(&self) -> &str {
        &self.place
    }
}

/// A record that asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// Plain text.
    #[error(
        "{place}: a record of plain text has no response to compare with: give chat, Alpaca or \
         Dolly records, or evaluate the loss alone (--task loss)"
    )]
    Text {
        /// Which record.
        place: String,
    },
    /// A chat that the assistant does not end.
    #[error(
        "{place}: the last turn is not the assistant's, so that there is no response to compare \
         with: end the chat with one, or evaluate the loss alone (--task loss)"
    )]
    NoResponse {
        /// Which record.
        place: String,
    },
}
