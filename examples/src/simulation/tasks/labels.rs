//! Which responses are labels, and which records have one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use fedlora_train::eval::Question;

use crate::simulation::data::SimulationData;

/// Fewest training records, of all members together, that have a label as their response.
const MIN_RECORDS: usize = 2;
/// Longest label, in characters; it stands on one line.
const MAX_LABEL_CHARS: usize = 200;
/// Most labels: each is compared with each record.
const MAX_LABELS: usize = 1000;

/// The members' records as questions, and the responses that are labels.
#[derive(Debug)]
pub(super) struct LabelledData {
    /// The labels in alphabetical order; may be none.
    pub(super) labels: Vec<String>,
    /// In the members' order.
    pub(super) members: Vec<MemberQuestions>,
}

/// One member's questions.
#[derive(Debug)]
pub(super) struct MemberQuestions {
    pub(super) name: String,
    /// What it trains on and chooses by.
    pub(super) training: Vec<Question>,
    pub(super) held_out: Vec<Question>,
}

impl LabelledData {
    /// Finds the labels: responses on one line, of at most 200 characters, that two or more
    /// training records have.
    ///
    /// # Errors
    /// Records without a response, or more labels than 1,000.
    pub(super) fn new(data: &SimulationData) -> anyhow::Result<Self> {
        let members: Vec<MemberQuestions> = data
            .institutions
            .iter()
            .map(|one| {
                Ok(MemberQuestions {
                    name: one.name.to_string(),
                    training: Question::of_records(&one.records.training)?,
                    held_out: Question::of_records(&one.records.held_out)?,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let labels = labels(members.iter().flat_map(|one| &one.training));
        if labels.len() > MAX_LABELS {
            bail!(
                "{} responses occur in several training records: labels are at most {MAX_LABELS}",
                labels.len()
            );
        }
        Ok(Self { labels, members })
    }

    /// The number of a question's label, if its response is one.
    pub(super) fn label(&self, question: &Question) -> Option<usize> {
        let response = question.reference().trim();
        self.labels
            .binary_search_by(|label| label.as_str().cmp(response))
            .ok()
    }
}

/// The responses that are labels, in alphabetical order.
fn labels<'a>(training: impl Iterator<Item = &'a Question>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for question in training {
        *counts.entry(question.reference().trim()).or_default() += 1;
    }
    let labels: BTreeSet<String> = counts
        .into_iter()
        .filter(|(response, count)| {
            let short = response.chars().count() <= MAX_LABEL_CHARS;
            *count >= MIN_RECORDS && short && !response.contains(['\n', '\r'])
        })
        .map(|(response, _)| response.to_owned())
        .collect();
    labels.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use fedlora_data::Dataset;
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_short_responses_of_several_records() {
        let long = "x".repeat(201);
        let responses = ["b", "a", " b", "b\nb", "b\nb", &long, &long, "a", "once"];
        let lines: Vec<String> = responses
            .iter()
            .map(|response| json!({"instruction": "q", "output": response}).to_string())
            .collect();
        let records = Dataset::from_lines(lines.join("\n").as_bytes(), "made").unwrap();
        let questions = Question::of_records(&records).unwrap();
        assert_eq!(labels(questions.iter()), ["a", "b"]);
    }
}
