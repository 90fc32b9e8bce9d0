//! Instruction pairs: what each institution trains on and what it holds out.
//!
//! No report and no answer occurs twice, in whatever institution or part, and no text of the
//! training parts shares a run of thirteen words with a held-out one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::catalogue::{Catalogue, Weakness};
use super::institutions::{Institution, of_category};
use super::overlap::{MINIMUM, Overlap};
use super::{normalised, per_mille};

/// How many in a thousand pairs are held out.
const HELD_OUT: u64 = 130;
/// Longest answer, in characters: whole leading paragraphs up to this.
const LONGEST: usize = 700;

/// One line of a data file, in Alpaca form with three fields more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// The institution that holds it.
    pub institution: String,
    /// `report`, `description` or `mitigation`.
    pub kind: String,
    /// The weakness, as "CWE-79".
    pub cwe: String,
    /// What is asked.
    pub instruction: String,
    /// What it is asked of.
    pub input: String,
    /// The answer.
    pub output: String,
}

impl Pair {
    /// The text that must not show in another part: the report itself, or the answer.
    pub fn private_text(&self) -> &str {
        if self.kind == "report" {
            &self.input
        } else {
            &self.output
        }
    }
}

/// Both parts, and what was left out of them.
#[derive(Debug, Default)]
pub struct Pairs {
    /// To be trained on, by institution and then in catalogue order.
    pub training: Vec<Pair>,
    /// To be evaluated on, likewise.
    pub held_out: Vec<Pair>,
    /// Pairs that repeat a report or an answer of another pair.
    pub repeated: usize,
    /// Training pairs that share a run of words with a held-out pair.
    pub overlapping: usize,
    /// Pairs without an answer of at most `LONGEST` characters.
    pub too_long: usize,
    /// Reports and answers of fewer than [`MINIMUM`] words, which say too little.
    pub too_short: usize,
}

/// Makes the pairs of a catalogue.
pub fn make(catalogue: &Catalogue) -> Pairs {
    let mut out = Pairs::default();
    let mut pairs = reports(catalogue, &mut out);
    pairs.extend(descriptions(catalogue, &mut out));
    pairs.extend(mitigations(catalogue, &mut out));
    let before = pairs.len();
    pairs.retain(|(_, pair)| normalised(pair.private_text()).split(' ').count() >= MINIMUM);
    out.too_short = before - pairs.len();
    pairs.sort_by_key(|(weakness, pair)| (pair.institution.clone(), *weakness));

    let (held_out, training): (Vec<_>, Vec<_>) = pairs
        .into_iter()
        .map(|(_, pair)| pair)
        .partition(|pair| per_mille("fedlora data held-out", pair.private_text()) < HELD_OUT);
    let mut overlap = Overlap::default();
    for pair in &held_out {
        overlap.add(pair.private_text());
    }
    let before = training.len();
    out.training = training
        .into_iter()
        .filter(|pair| !overlap.touches(&pair.input) && !overlap.touches(&pair.output))
        .collect();
    out.overlapping = before - out.training.len();
    out.held_out = held_out;
    out
}

fn pair(
    institution: &Institution,
    weakness: &Weakness,
    [kind, instruction]: [&str; 2],
    input: String,
    output: String,
) -> (u32, Pair) {
    let pair = Pair {
        institution: institution.name.to_owned(),
        kind: kind.to_owned(),
        cwe: format!("CWE-{}", weakness.id),
        instruction: instruction.to_owned(),
        input,
        output,
    };
    (weakness.id, pair)
}

/// One pair for every vulnerability. The catalogue shows one CVE under several weaknesses,
/// in the same words or in others; entries that share the identifier or the words are one
/// group, and its entry with the most specific weakness (of those, the lowest number) stands
/// for all of them.
fn reports(catalogue: &Catalogue, out: &mut Pairs) -> Vec<(u32, Pair)> {
    let entries: Vec<_> = catalogue
        .weaknesses
        .iter()
        .flat_map(|weakness| {
            weakness
                .reports
                .iter()
                .map(move |report| (weakness, report))
        })
        .filter(|(_, report)| !report.description.is_empty())
        .collect();
    let mut groups = Groups::new(entries.len());
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for (index, (_, report)) in entries.iter().enumerate() {
        let words = format!("words {}", normalised(&report.description));
        for key in [format!("reference {}", report.reference), words] {
            let other = *first.entry(key).or_insert(index);
            groups.join(index, other);
        }
    }
    let mut best: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, (weakness, _)) in entries.iter().enumerate() {
        let chosen = best.entry(groups.root(index)).or_insert(index);
        let current = entries[*chosen].0;
        if (weakness.specificity, current.id) > (current.specificity, weakness.id) {
            *chosen = index;
        }
    }
    out.repeated += entries.len() - best.len();
    best.into_values()
        .filter_map(|index| {
            let (weakness, report) = entries[index];
            let asked = [
                "report",
                "Which weakness does this vulnerability report show?",
            ];
            let input = report.description.clone();
            if input.chars().count() > LONGEST {
                out.too_long += 1;
                return None;
            }
            let institution = of_category(weakness.category)?;
            Some(pair(institution, weakness, asked, input, weakness.label()))
        })
        .collect()
}

fn descriptions(catalogue: &Catalogue, out: &mut Pairs) -> Vec<(u32, Pair)> {
    let mut seen = BTreeSet::new();
    let mut pairs = Vec::new();
    for weakness in &catalogue.weaknesses {
        let Some(institution) = of_category(weakness.category) else {
            continue;
        };
        if !seen.insert(normalised(&weakness.description)) {
            out.repeated += 1;
        } else if weakness.description.chars().count() > LONGEST {
            out.too_long += 1;
        } else {
            let asked = ["description", "What is this weakness?"];
            let answer = weakness.description.clone();
            pairs.push(pair(institution, weakness, asked, weakness.label(), answer));
        }
    }
    pairs
}

/// One pair for every mitigation text. Many weaknesses share one; the hash of text and
/// weakness chooses which of them keeps it.
fn mitigations(catalogue: &Catalogue, out: &mut Pairs) -> Vec<(u32, Pair)> {
    let mut chosen: BTreeMap<String, (u64, (u32, Pair))> = BTreeMap::new();
    for weakness in &catalogue.weaknesses {
        let Some(institution) = of_category(weakness.category) else {
            continue;
        };
        for mitigation in &weakness.mitigations {
            let answer = leading(&mitigation.paragraphs);
            if answer.is_empty() {
                out.too_long += usize::from(!mitigation.paragraphs.is_empty());
                continue;
            }
            let asked = ["mitigation", "How is this weakness prevented?"];
            let input = match mitigation.phases.join(", ") {
                phases if phases.is_empty() => weakness.label(),
                phases => format!("{}\nPhase: {phases}", weakness.label()),
            };
            let rank = per_mille(
                "fedlora data mitigation",
                &format!("{} {answer}", weakness.id),
            );
            let candidate = (rank, pair(institution, weakness, asked, input, answer));
            let key = normalised(&candidate.1.1.output);
            match chosen.get_mut(&key) {
                None => {
                    chosen.insert(key, candidate);
                }
                Some(current) => {
                    out.repeated += 1;
                    if candidate < *current {
                        *current = candidate;
                    }
                }
            }
        }
    }
    chosen.into_values().map(|(_, pair)| pair).collect()
}

/// The first paragraphs, as many as fit into [`LONGEST`] characters.
fn leading(paragraphs: &[String]) -> String {
    let mut out = String::new();
    for paragraph in paragraphs {
        let length = out.chars().count() + paragraph.chars().count() + 1;
        if length > LONGEST {
            break;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(paragraph);
    }
    out
}

/// Disjoint sets over `0..n`.
struct Groups(Vec<usize>);

impl Groups {
    fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    fn root(&self, mut index: usize) -> usize {
        while self.0[index] != index {
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::{Mitigation, Report};
    use super::*;

    fn weakness(id: u32, specificity: u8, category: u32, reports: &[(&str, &str)]) -> Weakness {
        Weakness {
            id,
            name: format!("Name {id}"),
            specificity,
            category,
            description: format!("About number {id}."),
            reports: reports
                .iter()
                .map(|(reference, description)| Report {
                    reference: (*reference).to_owned(),
                    description: (*description).to_owned(),
                })
                .collect(),
            mitigations: vec![Mitigation {
                phases: vec!["Implementation".into()],
                paragraphs: vec!["Do not ever do this.".into(), "x".repeat(LONGEST)],
            }],
            sections: Vec::new(),
        }
    }

    #[test]
    fn a_vulnerability_shown_twice_gives_one_pair_at_its_most_specific_weakness() {
        let catalogue = Catalogue {
            weaknesses: vec![
                weakness(
                    1,
                    1,
                    1396,
                    &[
                        ("CVE-1", "The first words of it."),
                        ("CVE-2", "Other words for the second."),
                    ],
                ),
                weakness(
                    2,
                    3,
                    1409,
                    &[
                        ("CVE-1", "The second words of it."),
                        ("CVE-3", "other WORDS for the second"),
                    ],
                ),
            ],
            groupings: Vec::new(),
        };
        let pairs = make(&catalogue);
        let all: Vec<_> = pairs.training.iter().chain(&pairs.held_out).collect();
        let reports: BTreeSet<_> = all
            .iter()
            .filter(|p| p.kind == "report")
            .map(|p| (p.institution.as_str(), p.input.as_str(), p.output.as_str()))
            .collect();
        assert_eq!(
            reports,
            BTreeSet::from([
                ("web-soc", "The second words of it.", "CWE-2: Name 2"),
                ("web-soc", "other WORDS for the second", "CWE-2: Name 2"),
            ])
        );
        let mitigations: Vec<_> = all.iter().filter(|p| p.kind == "mitigation").collect();
        assert_eq!(mitigations.len(), 1);
        assert_eq!(mitigations[0].output, "Do not ever do this.");
        assert_eq!(pairs.repeated, 3);
    }

    #[test]
    fn training_text_that_shows_in_a_held_out_pair_is_dropped() {
        let many: Vec<(String, String)> = (0..200)
            .map(|i| {
                let same = "the very same thirteen words stand in each of these reports to match";
                (format!("CVE-{i}"), format!("{i} {same} {i}"))
            })
            .collect();
        let reports: Vec<_> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let catalogue = Catalogue {
            weaknesses: vec![weakness(1, 1, 1396, &reports)],
            groupings: Vec::new(),
        };
        let pairs = make(&catalogue);
        let held_out = pairs.held_out.iter().filter(|p| p.kind == "report").count();
        assert!(held_out > 0);
        assert!(pairs.training.iter().all(|p| p.kind != "report"));
        assert_eq!(pairs.overlapping + held_out, 200);
    }
}
