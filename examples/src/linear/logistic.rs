//! Multinomial logistic regression on sparse rows, with the objective of scikit-learn's
//! `LogisticRegression()`: the sum of the examples' cross-entropies plus half the squared norm of
//! the weights (C = 1), intercepts without penalty. Two classes have one row of weights, the
//! first class's scores being 0.
//!
//! It is minimised by accelerated gradient descent (Beck and Teboulle 2009, "A Fast Iterative
//! Shrinkage-Thresholding Algorithm for Linear Inverse Problems", with a constant step) that
//! starts afresh where it overshoots (O'Donoghue and Candès 2015, "Adaptive Restart for
//! Accelerated Gradient Schemes", the gradient scheme).

use super::tf_idf::Row;

/// Largest component of the gradient of the mean loss at which the search ends.
const TOLERANCE: f64 = 1e-6;
/// Most steps of the search.
const MAX_STEPS: usize = 5000;
/// Steps of the power method that finds the curvature.
const POWER_STEPS: usize = 60;

/// A fitted model.
#[derive(Debug)]
pub(super) struct Logistic {
    /// For each feature, and last the intercept, a weight for each column; row by row.
    weights: Vec<f64>,
    features: usize,
    shape: Shape,
}

/// How classes stand in columns of weights.
#[derive(Debug, Clone, Copy)]
struct Shape {
    classes: usize,
    /// As many as classes; one where there are two classes, of the second.
    columns: usize,
}

impl Shape {
    fn new(classes: usize) -> Self {
        let columns = if classes == 2 { 1 } else { classes };
        Self { classes, columns }
    }

    /// The column of a class, if it has one.
    fn column(self, class: usize) -> Option<usize> {
        (class + self.columns).checked_sub(self.classes)
    }

    /// Scores of the columns to their probabilities; the classes without a column have score 0.
    fn softmax(self, scores: &mut [f64]) {
        let fixed = self.classes > self.columns;
        let floor = if fixed { 0.0 } else { f64::NEG_INFINITY };
        let largest = scores.iter().copied().fold(floor, f64::max);
        for score in scores.iter_mut() {
            *score = (*score - largest).exp();
        }
        let rest = if fixed { (-largest).exp() } else { 0.0 };
        let sum = rest + scores.iter().sum::<f64>();
        for score in scores.iter_mut() {
            *score /= sum;
        }
    }
}

impl Logistic {
    /// Fits the model to rows of `features` features and their classes, below `classes`.
    pub(super) fn fit(rows: &[Row], features: usize, targets: &[usize], classes: usize) -> Self {
        let shape = Shape::new(classes);
        let size = (features + 1) * shape.columns;
        // Half of the rows' largest eigenvalue bounds the loss's curvature (Böhning 1992,
        // "Multinomial Logistic Regression Algorithm"); the penalty adds one.
        let step = 1.0 / (1.0 + 0.5 * largest_eigenvalue(rows, features));
        let (mut weights, mut ahead) = (vec![0.0; size], vec![0.0; size]);
        let mut slope = vec![0.0; size];
        let mut momentum = 1.0_f64;
        for _ in 0..MAX_STEPS {
            gradient(rows, targets, shape, &ahead, &mut slope);
            let largest = slope.iter().fold(0.0_f64, |most, one| most.max(one.abs()));
            if largest <= TOLERANCE * rows.len() as f64 {
                break;
            }
            let next = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt());
            let pull = (momentum - 1.0) / next;
            let mut against = 0.0;
            for ((weight, ahead), slope) in weights.iter_mut().zip(&mut ahead).zip(&slope) {
                let new = *ahead - step * slope;
                let moved = new - *weight;
                against += slope * moved;
                *weight = new;
                *ahead = new + pull * moved;
            }
            if against > 0.0 {
                ahead.copy_from_slice(&weights);
                momentum = 1.0;
            } else {
                momentum = next;
            }
        }
        Self {
            weights: ahead,
            features,
            shape,
        }
    }

    /// The probability of each class.
    pub(super) fn probabilities(&self, row: &Row) -> Vec<f64> {
        let mut scores = vec![0.0; self.shape.columns];
        add_scores(row, self.features, &self.weights, &mut scores);
        self.shape.softmax(&mut scores);
        let rest = 1.0 - scores.iter().sum::<f64>();
        (0..self.shape.classes)
            .map(|class| self.shape.column(class).map_or(rest, |at| scores[at]))
            .collect()
    }
}

/// Writes the objective's gradient at `weights` to `slope`.
fn gradient(rows: &[Row], targets: &[usize], shape: Shape, weights: &[f64], slope: &mut [f64]) {
    let columns = shape.columns;
    let features = weights.len() / columns - 1;
    slope.copy_from_slice(weights);
    slope[features * columns..].fill(0.0);
    let mut errors = vec![0.0; columns];
    for (row, target) in rows.iter().zip(targets) {
        errors.fill(0.0);
        add_scores(row, features, weights, &mut errors);
        shape.softmax(&mut errors);
        if let Some(column) = shape.column(*target) {
            errors[column] -= 1.0;
        }
        for (feature, value) in with_intercept(row, features) {
            let part = &mut slope[feature * columns..][..columns];
            for (slope, error) in part.iter_mut().zip(&errors) {
                *slope += value * error;
            }
        }
    }
}

/// Adds a row's scores under `weights`, one for each column.
fn add_scores(row: &Row, features: usize, weights: &[f64], scores: &mut [f64]) {
    let columns = scores.len();
    for (feature, value) in with_intercept(row, features) {
        let part = &weights[feature * columns..][..columns];
        for (score, weight) in scores.iter_mut().zip(part) {
            *score += value * weight;
        }
    }
}

/// A row's features, and the constant 1 of the intercept.
fn with_intercept(row: &Row, features: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
    row.iter().copied().chain([(features, 1.0)])
}

/// A little more than the largest eigenvalue of the rows' Gram matrix, by the power method. The
/// rows are not negative, so that the first vector is not across it.
fn largest_eigenvalue(rows: &[Row], features: usize) -> f64 {
    let mut vector = vec![1.0; features + 1];
    let mut eigenvalue = 0.0;
    for _ in 0..POWER_STEPS {
        let norm = vector.iter().map(|one| one * one).sum::<f64>().sqrt();
        let mut image = vec![0.0; features + 1];
        for row in rows {
            let along: f64 = with_intercept(row, features)
                .map(|(feature, value)| value * vector[feature] / norm)
                .sum();
            for (feature, value) in with_intercept(row, features) {
                image[feature] += value * along;
            }
        }
        eigenvalue = image.iter().map(|one| one * one).sum::<f64>().sqrt();
        vector = image;
    }
    1.02 * eigenvalue
}
