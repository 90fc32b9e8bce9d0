//! Term frequency times inverse document frequency, as scikit-learn's `TfidfVectorizer` has them
//! by default: lower case, words of two characters and more, `idf = ln((1 + n) / (1 + df)) + 1`,
//! rows of L2 norm 1.

use std::collections::{BTreeMap, BTreeSet};

/// A text's features that are not 0: their numbers, ascending, and their values.
pub(super) type Row = Vec<(usize, f64)>;

/// The words of a collection of texts, each with a number and its inverse document frequency.
#[derive(Debug)]
pub(super) struct TfIdf {
    /// By word: its number, in alphabetical order, and its inverse document frequency.
    words: BTreeMap<String, (usize, f64)>,
}

impl TfIdf {
    /// Counts in how many of `texts` each word occurs.
    pub(super) fn fit<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut documents = 0;
        for text in texts {
            documents += 1;
            for word in words(text).collect::<BTreeSet<_>>() {
                *counts.entry(word).or_default() += 1;
            }
        }
        let words = counts.into_iter().enumerate();
        let words = words.map(|(number, (word, count))| {
            let inverse = (1.0 + f64::from(documents)) / (1.0 + count as f64);
            (word, (number, inverse.ln() + 1.0))
        });
        Self {
            words: words.collect(),
        }
    }

    /// Number of features.
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The features of a text; words of no text that was counted are passed over.
    pub(super) fn row(&self, text: &str) -> Row {
        let mut weights: BTreeMap<usize, f64> = BTreeMap::new();
        for word in words(text) {
            if let Some((number, inverse)) = self.words.get(&word) {
                *weights.entry(*number).or_default() += inverse;
            }
        }
        let norm = weights.values().map(|weight| weight * weight).sum::<f64>();
        let norm = norm.sqrt();
        weights
            .into_iter()
            .map(|(number, weight)| (number, weight / norm))
            .collect()
    }

    #[cfg(test)]
    pub(super) fn number(&self, word: &str) -> Option<usize> {
        self.words.get(word).map(|(number, _)| *number)
    }
}

/// Runs of two or more letters, digits and underscores in the lower-cased text.
fn words(text: &str) -> impl Iterator<Item = String> {
    let text = text.to_lowercase();
    let words: Vec<String> = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| word.chars().nth(1).is_some())
        .map(str::to_owned)
        .collect();
    words.into_iter()
}
