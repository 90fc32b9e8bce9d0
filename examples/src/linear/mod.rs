//! The baseline that any classification by a language model is to beat: TF-IDF of words under
//! multinomial logistic regression, with scikit-learn's defaults
//! (`make_pipeline(TfidfVectorizer(), LogisticRegression())`).
//!
//! Why it is our own: docs/DECISIONS.md, "The linear baseline".

mod logistic;
mod tf_idf;

use logistic::Logistic;
use tf_idf::TfIdf;

/// A fitted classifier of texts.
#[derive(Debug)]
pub(crate) struct TextClassifier {
    features: TfIdf,
    model: Logistic,
    /// The label of each of the model's classes, ascending.
    labels: Vec<usize>,
}

impl TextClassifier {
    /// Fits the classifier to texts and their labels, which may be any numbers; none where there
    /// is no text. Where all have one label, it is always predicted.
    pub(crate) fn fit(examples: &[(&str, usize)]) -> Option<Self> {
        let mut labels: Vec<usize> = examples.iter().map(|(_, label)| *label).collect();
        labels.sort_unstable();
        labels.dedup();
        if labels.is_empty() {
            return None;
        }
        let features = TfIdf::fit(examples.iter().map(|(text, _)| *text));
        let rows: Vec<_> = examples
            .iter()
            .map(|(text, _)| features.row(text))
            .collect();
        let classes: Vec<usize> = examples
            .iter()
            .map(|(_, label)| labels.partition_point(|one| one < label))
            .collect();
        let model = Logistic::fit(&rows, features.len(), &classes, labels.len());
        Some(Self {
            features,
            model,
            labels,
        })
    }

    /// The likeliest label of a text.
    pub(crate) fn predict(&self, text: &str) -> usize {
        let probabilities = self.probabilities(text);
        let best = (0..probabilities.len()).rev();
        let best = best.max_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
        self.labels[best.unwrap_or(0)]
    }

    /// The probability of each label, in ascending order of the labels.
    fn probabilities(&self, text: &str) -> Vec<f64> {
        self.model.probabilities(&self.features.row(text))
    }
}

#[cfg(test)]
mod tests;
