//! What the federation is compared with, on the same budget of examples: each member alone,
//! and all records in one place. Both train both factors, as anyone would.

use std::ops::ControlFlow;

use fedlora_adapter::{Adapter, Factors};
use fedlora_client::update::LocalWork;
use fedlora_model::Example;
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::RunPlan;
use fedlora_train::{Batches, Engine, Span, TrainError, TrainOption, TrainOptions};

use super::data::SimulationData;
use super::progress::Bars;

/// Trains each member alone for as many steps as it has in the federation.
pub(super) fn local_only(
    engine: &Engine,
    data: &SimulationData,
    plan: &RunPlan,
    first: &Adapter,
    bars: &Bars,
) -> Result<Vec<Adapter>, TrainError> {
    let steps = plan.training.steps as usize * plan.rounds as usize;
    data.institutions
        .iter()
        .map(|one| {
            let options = options(engine, plan, steps)?;
            let label = format!("{} alone", one.name);
            train(engine, first, &one.training, &options, steps, &label, bars)
        })
        .collect()
}

/// Trains on all records in one place, with as many steps as all members have together.
pub(super) fn centralised(
    engine: &Engine,
    data: &SimulationData,
    plan: &RunPlan,
    first: &Adapter,
    bars: &Bars,
) -> Result<Adapter, TrainError> {
    let rounds = plan.training.steps as usize * plan.rounds as usize;
    let steps = rounds * data.institutions.len();
    let options = options(engine, plan, steps)?;
    let training = data.all_training();
    train(
        engine,
        first,
        &training,
        &options,
        steps,
        "centralised",
        bars,
    )
}

fn options(engine: &Engine, plan: &RunPlan, steps: usize) -> Result<TrainOptions, TrainError> {
    // The plan's own parameters, over one training instead of several rounds.
    let work = LocalWork::new(engine.clone(), Vec::new(), Vec::new(), plan.seed());
    let steps = TrainOption::Steps.count(steps)?;
    Ok(TrainOptions {
        batches: Batches::Continuous {
            batch_size: TrainOption::BatchSize.count(plan.training.batch_size as usize)?,
            shuffle: true,
            steps,
        },
        span: Some(Span {
            first: 0,
            total: steps,
        }),
        ..work.options(plan, RoundNumber(1))?
    })
}

fn train(
    engine: &Engine,
    first: &Adapter,
    examples: &[Example],
    options: &TrainOptions,
    steps: usize,
    label: &str,
    bars: &Bars,
) -> Result<Adapter, TrainError> {
    bars.begin(label, steps as u64);
    let trained = engine.train(first, Factors::Both, examples, options, &mut |progress| {
        bars.step(progress.step as u64, progress.loss);
        ControlFlow::Continue(())
    })?;
    bars.end();
    Ok(trained.adapter)
}
