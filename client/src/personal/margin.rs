//! Whether one adapter does better than another on a member's validation examples by more than chance.

use fedlora_train::ExampleLoss;

/// Whether `one` has a mean loss a token below that of `other`, by more than one standard error of the
/// difference: the rule of one standard error of Breiman et al. (Classification and Regression Trees,
/// 1984, section 3.4.3), for pairs. Both are losses of the same examples, in the same order.
///
/// The difference is a ratio of sums over examples; its standard error is that of the ratio
/// estimator (Cochran, Sampling Techniques, 1977, section 6.4).
pub(super) fn is_clearly_below(one: &[ExampleLoss], other: &[ExampleLoss]) -> bool {
    let pairs = || {
        one.iter()
            .zip(other)
            .map(|(a, b)| (a.sum - b.sum, a.tokens as f64))
    };
    let count = pairs().count();
    let (sum, tokens) = pairs().fold((0.0, 0.0), |(sum, all), (difference, tokens)| {
        (sum + difference, all + tokens)
    });
    if count < 2 || tokens == 0.0 {
        return false;
    }
    let mean = sum / tokens;
    let squares: f64 = pairs()
        .map(|(difference, tokens)| (difference - mean * tokens).powi(2))
        .sum();
    let count = count as f64;
    let error = (squares * count / (count - 1.0)).sqrt() / tokens;
    mean < -error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(sums: &[f64]) -> Vec<ExampleLoss> {
        let of = |sum: &f64| ExampleLoss {
            sum: *sum,
            tokens: 10,
        };
        sums.iter().map(of).collect()
    }

    #[test]
    fn a_difference_within_its_error_is_not_clear() {
        let other = losses(&[10.0, 10.0, 10.0, 10.0]);
        // Mean -0.1 a token, error 0: the same everywhere.
        assert!(is_clearly_below(&losses(&[9.0, 9.0, 9.0, 9.0]), &other));
        // By hand: differences -4, 2, -4, 2 of 10 tokens each. Mean -4 / 40 = -0.1; residuals -3, 3, -3,
        // 3; error sqrt(36 * 4 / 3) / 40 = 0.173.
        assert!(!is_clearly_below(&losses(&[6.0, 12.0, 6.0, 12.0]), &other));
        // Differences -3, -1, -3, -1: mean -0.2, error sqrt(4 * 4 / 3) / 40 = 0.058.
        assert!(is_clearly_below(&losses(&[7.0, 9.0, 7.0, 9.0]), &other));
        assert!(!is_clearly_below(&other, &losses(&[7.0, 9.0, 7.0, 9.0])));
        assert!(!is_clearly_below(&other, &other));
    }

    #[test]
    fn one_example_tells_nothing() {
        assert!(!is_clearly_below(&losses(&[1.0]), &losses(&[10.0])));
        assert!(!is_clearly_below(&[], &[]));
    }
}
