//! Closed sets of responses, for classification.

use std::collections::BTreeMap;
use std::fmt;

use crate::eval::question::Question;
use crate::remedy::Remedy;

/// Largest set that is detected.
const MAX_LABELS: usize = 20;
/// Longest label in a set that is detected, in characters.
const MAX_LABEL_CHARS: usize = 40;
/// Fewest records for each label, on average, in a set that is detected.
const MIN_RECORDS_EACH: usize = 3;

/// At least two responses to choose from, and the index of each record's own. `Debug` shows
/// their number only.
#[derive(Clone, PartialEq, Eq)]
pub struct LabelSet {
    labels: Vec<String>,
    truth: Vec<usize>,
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LabelSet({} labels, {} records)",
            self.labels.len(),
            self.truth.len()
        )
    }
}

impl LabelSet {
    /// The set of all responses in alphabetical order. White space around
    /// a response is not part of its label.
    ///
    /// # Errors
    /// [`LabelError::Few`] where all records have the same response.
    pub fn of_responses(questions: &[Question]) -> Result<Self, LabelError> {
        let mut labels: BTreeMap<&str, usize> = questions
            .iter()
            .map(|question| (question.reference().trim(), 0))
            .collect();
        for (number, index) in labels.values_mut().enumerate() {
            *index = number;
        }
        if labels.len() < 2 {
            return Err(LabelError::Few {
                records: questions.len(),
            });
        }
        Ok(Self {
            truth: questions
                .iter()
                .map(|question| labels[question.reference().trim()])
                .collect(),
            labels: labels.into_keys().map(str::to_owned).collect(),
        })
    }

    /// The set of all responses if they look like labels: from 2 to 20, each of at most 40
    /// characters on one line, and at least three records for each on average.
    pub fn detect(questions: &[Question]) -> Option<Self> {
        let set = Self::of_responses(questions).ok()?;
        let short = |label: &String| {
            label.chars().count() <= MAX_LABEL_CHARS && !label.contains(['\n', '\r'])
        };
        let closed = set.labels.len() <= MAX_LABELS
            && questions.len() >= MIN_RECORDS_EACH * set.labels.len()
            && set.labels.iter().all(short);
        closed.then_some(set)
    }

    /// A set that the caller names, in the order given.
    ///
    /// # Errors
    /// Fewer than two labels, an empty or repeated one, or a record with another response.
    pub fn given(labels: &[String], questions: &[Question]) -> Result<Self, LabelError> {
        let labels: Vec<String> = labels.iter().map(|label| label.trim().to_owned()).collect();
        let distinct = |(index, label): (usize, &String)| {
            !label.is_empty() && !labels[..index].contains(label)
        };
        if labels.len() < 2 || !labels.iter().enumerate().all(distinct) {
            return Err(LabelError::Given);
        }
        let place = |question: &Question| {
            let response = question.reference().trim();
            labels.iter().position(|label| label == response)
        };
        let truth: Vec<_> = questions.iter().map(place).collect();
        let others = truth.iter().filter(|label| label.is_none()).count();
        let first = questions.iter().zip(&truth).find(|(_, at)| at.is_none());
        if let Some((question, _)) = first {
            return Err(LabelError::Other {
                place: question.place().to_owned(),
                count: others,
            });
        }
        Ok(Self {
            truth: truth.into_iter().flatten().collect(),
            labels,
        })
    }

    /// The distinct labels.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Each question's label, as an index into [`labels`](Self::labels).
    pub fn truth(&self) -> &[usize] {
        &self.truth
    }
}

/// Responses or labels that make no [`LabelSet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// All records have one response.
    #[error(
        "all {records} records have the same response: classification needs at least two \
         different labels"
    )]
    Few {
        /// Number of records.
        records: usize,
    },
    /// Named labels that are too few, empty or repeated.
    #[error("a label set needs at least two different labels, none of them empty")]
    Given,
    /// A response that is not among the named labels.
    #[error("{place}: the response is none of the labels (so in {count} of the records)")]
    Other {
        /// File and line of the first such record.
        place: String,
        /// Number of such records.
        count: usize,
    },
}

impl LabelError {
    /// What a caller can change so that records can be classified.
    pub fn remedy(&self) -> Option<Remedy> {
        Some(Remedy::NameLabels)
    }
}
