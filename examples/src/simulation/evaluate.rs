//! Held-out perplexities.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use fedlora_adapter::{Adapter, peft};
use fedlora_aggregator::run_directory::RunDirectory;
use fedlora_train::{Engine, TrainError};

use super::data::SimulationData;
use super::report::{CurveFigures, Scores};

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
    let mut known: Vec<(&Adapter, f64)> = Vec::new();
    for (one, adapter) in data.institutions.iter().zip(adapters) {
        // Members may have kept one and the same.
        let before = known.iter().find(|(other, _)| *other == adapter);
        let loss = match before {
            Some((_, loss)) => *loss,
            None => engine.evaluate(Some(adapter), &all)?.loss,
        };
        known.push((adapter, loss));
        losses += loss;
        let own = engine.evaluate(Some(adapter), &one.examples.held_out)?;
        by_member.insert(one.name.to_string(), own.perplexity);
    }
    Ok(Scores {
        pooled: (losses / adapters.len() as f64).exp(),
        by_member,
    })
}

/// Rounds whose adapters are scored, beside the last.
const SCORED_ROUNDS: usize = 8;

/// The perplexities of the adapters that the run in the operator's folder published: of some rounds,
/// evenly spread, and the last.
pub(super) fn over_rounds(
    engine: &Engine,
    data: &SimulationData,
    operator: &Path,
    rounds: u32,
) -> anyhow::Result<Vec<CurveFigures>> {
    let run = RunDirectory::find(operator, None).context("the run's folder")?;
    let every = (rounds as usize).div_ceil(SCORED_ROUNDS).max(1);
    let mut scored: Vec<u32> = (1..=rounds).step_by(every).collect();
    if scored.last() != Some(&rounds) {
        scored.push(rounds);
    }
    scored
        .into_iter()
        .map(|round| {
            let folder = run.adapter(round);
            let adapter =
                peft::load(&folder).with_context(|| format!("the adapter of round {round}"))?;
            let held_out = one_for_all(engine, data, Some(&adapter))?;
            Ok(CurveFigures { round, held_out })
        })
        .collect()
}
