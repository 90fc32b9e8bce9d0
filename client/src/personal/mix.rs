//! The best point on the line between two adapters.

use fedlora_adapter::{Adapter, AdapterError};
use fedlora_train::{Engine, TrainError};

use fedlora_model::Example;

/// Points between the two ends at which the loss is taken.
const POINTS: [f64; 3] = [0.25, 0.5, 0.75];

/// The adapter at `share` of the way from `from` to `to`, factor by factor. As for models that
/// are averaged after fine-tuning (Wortsman et al., CVPR 2022), that makes sense where one was
/// trained from the other.
///
/// # Errors
/// Adapters of different shapes.
pub(super) fn between(from: &Adapter, to: &Adapter, share: f64) -> Result<Adapter, AdapterError> {
    let mut change: Vec<f32> = to
        .difference(from, from.layout())?
        .values()
        .iter()
        .map(|value| (f64::from(*value) * share) as f32)
        .collect();
    let mut mixed = from.clone();
    let added = mixed.add(from.layout(), &change);
    zeroize::Zeroize::zeroize(&mut change);
    added.map(|()| mixed)
}

/// The point with the lowest loss on `validation`, the far end (share 1, loss `at_end`) included.
pub(super) fn best_between(
    engine: &Engine,
    from: &Adapter,
    to: Adapter,
    at_end: f64,
    validation: &[Example],
) -> Result<(Adapter, f64, f64), TrainError> {
    let mut best = (to.clone(), 1.0, at_end);
    for share in POINTS {
        let Ok(mixed) = between(from, &to, share) else {
            continue;
        };
        let loss = engine.evaluate(Some(&mixed), validation)?.loss;
        if loss < best.2 {
            best = (mixed, share, loss);
        }
    }
    Ok(best)
}
