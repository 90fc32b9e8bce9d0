//! The simulation from start to end.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, anyhow};
use fedlora_adapter::{LoraConfig, Target, peft};
use fedlora_aggregator::ServeError;
use fedlora_client::base::BaseError;
use fedlora_client::federation::ParticipantError;
use fedlora_client::update::UpdateError;
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::{
    AdapterPlan, AggregationPlan, BasePlan, PersonalisationPlan, PlanError, RobustPlan,
    RollbackPlan, RunPlan, ServerPlan, StoppingPlan, Timeouts, TrainingPlan, Weighting,
};
use fedlora_train::{Engine, ModelError, TrainError};

use super::base::OpenBase;
use super::data::SimulationData;
use super::evaluate;
use super::federation;
use super::folder::OutFolder;
use super::options::{DropSpec, Options};
use super::page::page;
use super::progress::Bars;
use super::report::{Document, EvaluationFigures, MemberFigures, PoisonFigures};
use super::roles;
use super::scene::Scene;
use super::tasks::Tasks;

/// The peak learning rate for the embedded base: a small model takes a high one.
const EMBEDDED_RATE: f64 = 4e-3;
/// The peak learning rate for a base of the user's.
const USUAL_RATE: f64 = 1e-4;
/// Tokens an example is cut at.
const MAX_TOKENS: usize = 256;
/// Seconds that a broken connection may take to come back.
const RECONNECT: u64 = 3;
/// The file by which a folder is known as a simulation's.
pub(super) const MARKER: &str = "report.json";
/// The report for people.
pub(super) const PAGE: &str = "report.html";

/// Runs the simulation.
///
/// # Errors
/// [`SimulationError`], with the exit code that goes with it.
pub async fn run(options: &Options) -> Result<Document, SimulationError> {
    let bars = Bars::new(options.global.quiet, 1);
    let out = OutFolder::prepare(&options.out)?;
    let base = OpenBase::open(options, out.path())?;
    let document = run_on(options, &base, &bars).await?;
    bars.finish();
    Ok(document)
}

/// Runs the simulation on a base that is open, in a folder that is there.
///
/// # Errors
/// As [`run`].
pub(super) async fn run_on(
    options: &Options,
    base: &OpenBase,
    bars: &Bars,
) -> Result<Document, SimulationError> {
    options.check_data()?;
    // Equal seeds give equal results: nothing is rounded otherwise in another run.
    fedlora_protocol::fixed::repeat_rotations();
    let begun = Instant::now();
    let out = options.out.clone();
    let (engine, base_name) = (base.engine.clone(), base.name.clone());
    let max_tokens = options.variant.max_tokens().unwrap_or(MAX_TOKENS);
    let max_tokens = max_tokens.min(engine.max_tokens());
    let data =
        SimulationData::load(options, &base.pipeline, max_tokens).map_err(SimulationError::Data)?;
    let names: Vec<MemberName> = data
        .institutions
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let plan = plan(options, &data, &engine, &base_name, max_tokens)?;
    // Records that a task cannot use end the run before it begins.
    let tasks = Tasks::prepare(options, &data, base).map_err(SimulationError::Data)?;
    let faults = roles::faults(options, &plan, &names)?;
    let poison = roles::poisons(options, &names)?;

    let federated = u64::from(plan.rounds) * u64::from(plan.training.steps) * plan.members as u64;
    let scene = Scene {
        engine: &engine,
        data: &data,
        plan: &plan,
        jobs: jobs(options.jobs),
        bars,
    };
    bars.expect(federated + scene.steps(options.baselines));
    bars.line(&format!(
        "{} members, {} rounds of {} steps, base {base_name}",
        names.len(),
        plan.rounds,
        plan.training.steps
    ));
    let base_scores = tokio::task::block_in_place(|| evaluate::one_for_all(&engine, &data, None))?;
    let setting = federation::Setting {
        scene,
        verify_sum: options.verify_sum,
        folder: &out,
        poison: &poison,
    };
    let federation = federation::run(setting, faults).await?;
    for note in federation.end.notes() {
        bars.line(&note);
    }
    bars.line("evaluating");
    let federated = tokio::task::block_in_place(|| {
        evaluate::one_for_all(&engine, &data, Some(&federation.adapter))
    })?;
    let curves = tokio::task::block_in_place(|| {
        evaluate::over_rounds(
            &engine,
            &data,
            &out.join("operator"),
            federation.end,
            &federated,
        )
    })?;
    let adapter_dir = out.join("adapter");
    peft::save(&adapter_dir, &federation.adapter, &base_name)
        .context("the run's adapter cannot be written")?;

    let comparison =
        tokio::task::block_in_place(|| scene.compare(&federation.adapter, options.baselines))?;

    let scored = tokio::task::block_in_place(|| {
        tasks.scores(&scene, &comparison.adapters(&federation.adapter))
    });
    let (classification, generation) = scored.context("the tasks")?;

    let document = Document {
        label: options.variant.label.clone(),
        base: base_name,
        seed: options.seed,
        plan: plan.clone(),
        factors: plan.adapter.factors,
        robust: plan.aggregation.robust.clone(),
        partition: data.origin.clone(),
        poisoned: poison
            .iter()
            .map(|(name, poison)| PoisonFigures {
                member: name.to_string(),
                how: poison.to_string(),
            })
            .collect(),
        members: data
            .institutions
            .iter()
            .zip(&comparison.chosen)
            .map(|(one, chosen)| MemberFigures {
                name: one.name.to_string(),
                training_examples: one.examples.training.len(),
                validation_examples: one.examples.validation.len(),
                held_out_examples: one.examples.held_out.len(),
                rounds: federation.took_part.get(&one.name).copied().unwrap_or(0),
                chosen: Some(*chosen),
                gain_percent: comparison.gain(one.name.as_str()),
            })
            .collect(),
        newcomers: comparison.newcomers,
        rounds: federation.rounds,
        stopped_early: federation.end.stopped_early(),
        best_round: federation.end.best.0,
        curves,
        eval: EvaluationFigures {
            base: base_scores,
            local_only: comparison.local_only,
            federated,
            personalised: Some(comparison.personalised),
            centralised: comparison.centralised,
            centralised_then_local: comparison.centralised_then_local,
        },
        classification,
        generation,
        adapter_dir,
        wall_seconds: begun.elapsed().as_secs_f64(),
    };
    let value = document.value(options.no_timings).context("the report")?;
    let text = serde_json::to_vec_pretty(&value).context("the report")?;
    std::fs::write(out.join(MARKER), text).context("the report cannot be written")?;
    std::fs::write(out.join(PAGE), page(&document)).context("the page cannot be written")?;
    if document
        .rounds
        .iter()
        .any(|round| round.sum_exact == Some(false))
    {
        return Err(SimulationError::Sum);
    }
    Ok(document)
}

/// Members that train at a time: their tensors are small beside the base that they share.
fn jobs(asked: Option<u16>) -> usize {
    asked.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        usize::from,
    )
}

/// The share of members that the options cut off in each round.
fn dropping(drops: &[DropSpec]) -> f64 {
    let shares = drops.iter().map(|drop| match drop {
        DropSpec::Percent(percent) => f64::from(*percent) / 100.0,
        DropSpec::None | DropSpec::One(_) => 0.0,
    });
    shares.fold(0.0, f64::max)
}

fn plan(
    options: &Options,
    data: &SimulationData,
    engine: &Engine,
    base_name: &str,
    max_tokens: usize,
) -> Result<RunPlan, SimulationError> {
    let rate = if options.base.is_some() {
        USUAL_RATE
    } else {
        EMBEDDED_RATE
    };
    let rate = options.lr.unwrap_or(rate);
    let members = data.institutions.len();
    let lora = LoraConfig::new(options.rank, 2.0 * options.rank as f64, 0.0, Target::ALL)
        .map_err(|error| SimulationError::Usage(error.into()))?;
    let plan = RunPlan {
        rounds: options.rounds(),
        members,
        seed: Some(options.seed),
        start_from: None,
        base: BasePlan {
            name: base_name.to_owned(),
            digest: Some(engine.base_digest().map_err(ModelError::from)?),
        },
        adapter: AdapterPlan {
            lora,
            factors: options.factors,
        },
        training: TrainingPlan {
            steps: options.steps,
            batch_size: options.batch,
            max_tokens: max_tokens as u32,
            learning_rate: rate * RunPlan::rate_of_rounds(members),
            warmup_steps: (options.steps * options.rounds() / 20).max(1),
            ..TrainingPlan::default()
        },
        aggregation: AggregationPlan {
            weights: Weighting::Classes,
            max_class: WeightClass::MAX,
            robust: options.robust.map(|rule| RobustPlan {
                rule,
                groups: options.groups.unwrap_or(members as u16 / 3),
                trim: None,
                minimum: 3,
            }),
            // It is the user that cuts members off here.
            dropping: dropping(&options.drop),
            server_learning_rate: options.server_rate,
            ..AggregationPlan::default()
        },
        server: ServerPlan {
            optimizer: options.server_optimizer,
            momentum: options.server_momentum,
            ..ServerPlan::default()
        },
        stopping: StoppingPlan::default(),
        rollback: RollbackPlan::default(),
        personalisation: PersonalisationPlan::default(),
        timeouts: Timeouts {
            reconnect: RECONNECT,
            ..Timeouts::default()
        },
    };
    let plan = options.variant.plan(plan)?;
    if plan.members != data.institutions.len() {
        return Err(SimulationError::Usage(anyhow!(
            "the plan is for {} members, and there are {}",
            plan.members,
            data.institutions.len()
        )));
    }
    Ok(plan)
}

/// Why a simulation ended early.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// Options that do not go together.
    #[error(transparent)]
    Usage(anyhow::Error),
    /// The folder holds something else.
    #[error("{} is not empty and not an earlier simulation's: name another --out", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is another simulation's, which is running.
    #[error("another simulation is writing to {}: name another --out", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The records.
    #[error(transparent)]
    Data(anyhow::Error),
    /// The base cannot be found or fetched.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// The base model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Training or evaluation.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// What members train after the last round, or what it is compared with.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The file of a plan.
    #[error(transparent)]
    PlanFile(anyhow::Error),
    /// The plan.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The aggregator.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A member.
    #[error("{name}: {source}")]
    Member {
        /// The member's name.
        name: MemberName,
        /// The error that ended its part.
        source: Box<ParticipantError>,
    },
    /// A sum that is not what was encoded.
    #[error("an unmasked sum is not the sum of what the members encoded")]
    Sum,
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}
