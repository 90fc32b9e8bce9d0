//! ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004), as the Python package `rouge-score` gives them
//! without stemming. A corpus's figure is the mean of its pairs' F-measures.

use std::collections::HashMap;

/// Overlap of a hypothesis and its reference; each figure is from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// The share of the hypothesis that is in the reference.
    pub precision: f64,
    /// The share of the reference that is in the hypothesis.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f_measure: f64,
}

impl Score {
    fn new(shared: usize, hypothesis: usize, reference: usize) -> Self {
        let precision = shared as f64 / hypothesis.max(1) as f64;
        let recall = shared as f64 / reference.max(1) as f64;
        let f_measure = if precision + recall > 0.0 {
            2.0 * precision * recall / (precision + recall)
        } else {
            0.0
        };
        Self {
            precision,
            recall,
            f_measure,
        }
    }
}

/// The three scores of one hypothesis against its reference.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rouge {
    /// Overlap of single words.
    pub rouge1: Score,
    /// Overlap of pairs of neighbouring words.
    pub rouge2: Score,
    /// Length of the longest common subsequence of words.
    pub rouge_l: Score,
}

impl Rouge {
    /// Scores one hypothesis against its reference.
    pub fn of(hypothesis: &str, reference: &str) -> Self {
        let (hypothesis, reference) = (tokenize(hypothesis), tokenize(reference));
        let shared = longest_common_subsequence(&hypothesis, &reference);
        Self {
            rouge1: by_ngrams(&hypothesis, &reference, 1),
            rouge2: by_ngrams(&hypothesis, &reference, 2),
            rouge_l: Score::new(shared, hypothesis.len(), reference.len()),
        }
    }
}

/// Words as `rouge-score` makes them: runs of `a-z` and `0-9` in the lower-cased text. Letters
/// beyond ASCII separate words.
pub fn tokenize(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn by_ngrams(hypothesis: &[String], reference: &[String], n: usize) -> Score {
    let mut counts: HashMap<&[String], usize> = HashMap::new();
    for gram in reference.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    let mut shared = 0;
    for gram in hypothesis.windows(n) {
        if let Some(left) = counts.get_mut(gram).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1;
        }
    }
    let grams = |words: &[String]| words.len().saturating_sub(n - 1);
    Score::new(shared, grams(hypothesis), grams(reference))
}

/// The length of the longest common subsequence, in memory of one row.
fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (index, y) in b.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if x == y {
                diagonal + 1
            } else {
                above.max(row[index])
            };
            diagonal = above;
        }
    }
    row[b.len()]
}
