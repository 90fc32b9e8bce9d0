//! The text that the base model is pretrained on: the catalogue's prose, without any
//! vulnerability report and without any held-out answer.

use std::collections::HashSet;

use serde::Serialize;

use super::catalogue::{Catalogue, Section};
use super::overlap::Overlap;
use super::pairs::Pairs;
use super::vocabulary::chat_turns;
use super::{normalised, per_mille};

/// How many in a thousand records are kept for validation.
const VALIDATION: u64 = 50;

/// One line of the corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// `train` or `validation`. A record's documents are all in the same part.
    pub split: &'static str,
    /// `prose`, or `chat` for a question and an answer between chat tokens.
    pub form: &'static str,
    /// The text.
    pub text: String,
}

/// One record of the catalogue, before its paragraphs are sifted.
struct Record {
    title: String,
    sections: Vec<Section>,
    validation: bool,
}

/// Makes the corpus. Every paragraph is used once, at its first place; validation keeps no
/// paragraph that shares a run of words with a training one.
pub fn make(catalogue: &Catalogue, pairs: &Pairs) -> Vec<Document> {
    let mut kept_out = Overlap::default();
    for pair in &pairs.held_out {
        kept_out.add(pair.private_text());
    }
    for report in catalogue.weaknesses.iter().flat_map(|w| &w.reports) {
        kept_out.add(&report.description);
    }
    let records = records(catalogue);
    let mut seen = HashSet::new();
    let mut trained = Overlap::default();
    let mut out = Vec::new();
    for record in records.iter().filter(|record| !record.validation) {
        let sections = sift(record, |text| {
            let fresh = !kept_out.touches(text) && seen.insert(normalised(text));
            if fresh {
                trained.add(text);
            }
            fresh
        });
        out.extend(documents("train", &record.title, &sections));
    }
    for record in records.iter().filter(|record| record.validation) {
        let sections = sift(record, |text| {
            !kept_out.touches(text) && !trained.touches(text) && seen.insert(normalised(text))
        });
        out.extend(documents("validation", &record.title, &sections));
    }
    out
}

fn records(catalogue: &Catalogue) -> Vec<Record> {
    let weaknesses = catalogue.weaknesses.iter().map(|weakness| {
        let mut sections = vec![Section {
            title: "Description".into(),
            paragraphs: vec![weakness.description.clone()],
        }];
        sections.extend(weakness.sections.iter().cloned());
        sections.extend(weakness.mitigations.iter().map(|mitigation| Section {
            title: format!("Mitigation ({})", mitigation.phases.join(", ")),
            paragraphs: mitigation.paragraphs.clone(),
        }));
        (weakness.label(), sections)
    });
    let groupings = catalogue.groupings.iter().map(|grouping| {
        let title = format!("CWE-{}: {}", grouping.id, grouping.name);
        (title, grouping.sections.clone())
    });
    weaknesses
        .chain(groupings)
        .map(|(title, sections)| Record {
            validation: per_mille("fedlora corpus validation", &title) < VALIDATION,
            title,
            sections,
        })
        .collect()
}

fn sift(record: &Record, mut keep: impl FnMut(&str) -> bool) -> Vec<Section> {
    record
        .sections
        .iter()
        .filter_map(|section| {
            let paragraphs: Vec<String> = section
                .paragraphs
                .iter()
                .filter(|text| keep(text))
                .cloned()
                .collect();
            (!paragraphs.is_empty()).then(|| Section {
                title: section.title.clone(),
                paragraphs,
            })
        })
        .collect()
}

fn documents(split: &'static str, title: &str, sections: &[Section]) -> Vec<Document> {
    if sections.is_empty() {
        return Vec::new();
    }
    let mut prose = title.to_owned();
    for section in sections {
        let text = section.paragraphs.join("\n");
        prose.push_str(&format!("\n\n{}\n{text}", section.title));
    }
    let mut out = vec![Document {
        split,
        form: "prose",
        text: prose,
    }];
    out.extend(sections.iter().filter_map(|section| {
        let question = question(&section.title)?;
        let answer = section.paragraphs.join("\n");
        Some(Document {
            split,
            form: "chat",
            text: chat_turns(&format!("{question}\n\n{title}"), &answer),
        })
    }));
    out
}

/// The question whose answer a section is. None of those that the instruction pairs ask:
/// the base learns the form of a chat here, and the members' task from the members.
fn question(section: &str) -> Option<String> {
    let kind = section.split([':', '(']).next()?.trim();
    Some(match kind {
        "Extended description" => "Explain this in detail.".to_owned(),
        "Background" => "What should I know first?".to_owned(),
        "Summary" => "What does this category hold?".to_owned(),
        "Objective" => "What is this view for?".to_owned(),
        _ if kind.starts_with("Detection by") => format!("Describe {}.", lower(kind)),
        _ if kind.starts_with("Consequence") => "What may happen?".to_owned(),
        _ if kind.starts_with("Introduced") => "How does it come about?".to_owned(),
        _ => return None,
    })
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{Report, Weakness};
    use super::super::pairs;
    use super::*;

    #[test]
    fn reports_and_held_out_answers_are_not_in_the_corpus() {
        let weaknesses = (1..200)
            .map(|id| Weakness {
                id,
                name: format!("Name {id}"),
                specificity: 2,
                category: 1409,
                description: format!("The product forgets number {id} whenever it is asked."),
                reports: vec![Report {
                    reference: format!("CVE-{id}"),
                    description: format!("Server number {id} can be crashed from afar."),
                }],
                mitigations: Vec::new(),
                sections: vec![Section {
                    title: "Extended description".into(),
                    paragraphs: vec![
                        "The same in every record.".into(),
                        format!("Once: server number {id} can be crashed from afar."),
                        format!("Kept paragraph of record {id}."),
                    ],
                }],
            })
            .collect();
        let catalogue = Catalogue {
            weaknesses,
            groupings: Vec::new(),
        };
        let pairs = pairs::make(&catalogue);
        assert!(pairs.held_out.iter().any(|p| p.kind == "description"));
        let corpus = make(&catalogue, &pairs);
        let text: String = corpus.iter().map(|d| d.text.as_str()).collect();
        for pair in &pairs.held_out {
            assert!(!text.contains(pair.private_text()));
        }
        assert!(!text.contains("can be crashed"));
        assert!(text.contains("Kept paragraph of record 7."));
        assert_eq!(
            text.matches("The same in every record.").count(),
            2,
            "prose and chat"
        );
        assert!(corpus.iter().any(|d| d.split == "validation"));
    }
}
