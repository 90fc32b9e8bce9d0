//! Held-out perplexities.

use std::collections::BTreeMap;

use fedlora_adapter::Adapter;
use fedlora_train::{Engine, TrainError};

use super::data::SimulationData;
use super::report::Scores;

/// The perplexities of one adapter, or of the base alone.
pub(super) fn one_for_all(
    engine: &Engine,
    data: &SimulationData,
    adapter: Option<&Adapter>,
) -> Result<Scores, TrainError> {
    let mut by_member = BTreeMap::new();
    // All data is the members' data: their losses add up, weighted by tokens.
    let (mut loss, mut tokens) = (0.0, 0);
    for one in &data.institutions {
        let evaluation = engine.evaluate(adapter, &one.examples.held_out)?;
        loss += evaluation.loss * evaluation.tokens as f64;
        tokens += evaluation.tokens;
        by_member.insert(one.name.to_string(), evaluation.perplexity);
    }
    Ok(Scores {
        pooled: (loss / tokens as f64).exp(),
        by_member,
    })
}

/// The perplexities of the members' own adapters: each on its own data, and the geometric mean
/// of all on all data.
pub(super) fn each_its_own(
    engine: &Engine,
    data: &SimulationData,
    adapters: &[Adapter],
) -> Result<Scores, TrainError> {
    let all = data.all(|examples| &examples.held_out);
    let mut by_member = BTreeMap::new();
    let mut losses = 0.0;
    for (one, adapter) in data.institutions.iter().zip(adapters) {
        losses += engine.evaluate(Some(adapter), &all)?.loss;
        let own = engine.evaluate(Some(adapter), &one.examples.held_out)?;
        by_member.insert(one.name.to_string(), own.perplexity);
    }
    Ok(Scores {
        pooled: (losses / adapters.len() as f64).exp(),
        by_member,
    })
}
