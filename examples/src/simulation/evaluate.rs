//! Held-out perplexities.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::Context;
use fedlora_adapter::{Adapter, peft};
use fedlora_aggregator::run_directory::RunDirectory;
use fedlora_aggregator::store::Store;
use fedlora_common::digest::Digest;
use fedlora_model::Example;
use fedlora_protocol::plan::RunEnd;
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

/// Scores members' own adapters, each on all held-out examples once: members may keep one and the
/// same, or the one that they trained alone.
#[derive(Debug)]
pub(super) struct OwnScores<'a> {
    engine: &'a Engine,
    data: &'a SimulationData,
    all: Vec<Example>,
    /// Losses on all of them, by the adapter's digest.
    known: HashMap<Digest, f64>,
}

impl<'a> OwnScores<'a> {
    pub(super) fn new(engine: &'a Engine, data: &'a SimulationData) -> Self {
        Self {
            engine,
            data,
            all: data.all(|examples| &examples.held_out),
            known: HashMap::new(),
        }
    }

    /// The perplexities of the members' adapters: each on its own data, and the geometric mean of
    /// all on all data.
    pub(super) fn of(&mut self, adapters: &[&Adapter]) -> Result<Scores, TrainError> {
        let mut by_member = BTreeMap::new();
        let mut losses = 0.0;
        for (one, adapter) in self.data.institutions.iter().zip(adapters) {
            losses += self.on_all(adapter)?;
            let own = self
                .engine
                .evaluate(Some(adapter), &one.examples.held_out)?;
            by_member.insert(one.name.to_string(), own.perplexity);
        }
        Ok(Scores {
            pooled: (losses / adapters.len() as f64).exp(),
            by_member,
        })
    }

    fn on_all(&mut self, adapter: &Adapter) -> Result<f64, TrainError> {
        let digest = adapter.digest();
        if let Some(loss) = self.known.get(&digest) {
            return Ok(*loss);
        }
        let loss = self.engine.evaluate(Some(adapter), &self.all)?.loss;
        self.known.insert(digest, loss);
        Ok(loss)
    }
}

/// Rounds whose adapters are scored, beside the last.
const SCORED_ROUNDS: usize = 8;

/// The perplexities of the adapters that the run in the operator's folder published: of some rounds,
/// evenly spread, of the last, and of the one that is the result, whose are `federated`.
pub(super) fn over_rounds(
    engine: &Engine,
    data: &SimulationData,
    operator: &Path,
    end: RunEnd,
    federated: &Scores,
) -> anyhow::Result<Vec<CurveFigures>> {
    let run = RunDirectory::find(&Store::folder(operator), None).context("the run's folder")?;
    let RunEnd { rounds, best, .. } = end;
    let every = (rounds as usize).div_ceil(SCORED_ROUNDS).max(1);
    let mut scored: BTreeSet<u32> = (1..rounds).step_by(every).collect();
    scored.insert(rounds);
    // The first adapter is that of no round.
    scored.extend(Some(best.0).filter(|best| *best > 0));
    let figures = scored.into_iter().map(|round| {
        let held_out = if round == best.0 {
            federated.clone()
        } else {
            let adapter = peft::load(&run.adapter(round))
                .with_context(|| format!("the adapter of round {round}"))?;
            one_for_all(engine, data, Some(&adapter))?
        };
        Ok(CurveFigures { round, held_out })
    });
    figures.collect()
}
