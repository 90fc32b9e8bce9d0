//! Accuracy and macro-F1 of closed label sets, as scikit-learn gives them. Labels are numbers.

use std::collections::BTreeMap;

/// The share of predictions that equal their truth; 0 where there is none.
pub fn accuracy(pairs: &[(usize, usize)]) -> f64 {
    let right = pairs.iter().filter(|(truth, got)| truth == got).count();
    right as f64 / pairs.len().max(1) as f64
}

/// The unweighted mean of each label's F1, `2 tp / (2 tp + fp + fn)`, over the labels that
/// stand in the truth or among the predictions. `pairs` holds (truth, prediction).
pub fn macro_f1(pairs: &[(usize, usize)]) -> f64 {
    /// Right, and how often it stands in the truth and among the predictions, together.
    #[derive(Default)]
    struct Count {
        right: usize,
        stands: usize,
    }
    let mut labels: BTreeMap<usize, Count> = BTreeMap::new();
    for &(truth, got) in pairs {
        labels.entry(truth).or_default().stands += 1;
        let count = labels.entry(got).or_default();
        count.stands += 1;
        count.right += usize::from(truth == got);
    }
    // A label stands 2 tp + fp + fn times in the two columns.
    let sum: f64 = labels
        .values()
        .map(|count| 2.0 * count.right as f64 / count.stands as f64)
        .sum();
    sum / labels.len().max(1) as f64
}
