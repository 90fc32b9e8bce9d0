//! Training at home: from the global adapter on, or alone from the first one.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_adapter::Adapter;
use fedlora_model::Example;
use fedlora_protocol::plan::{PersonalisationMethod, RunPlan};
use fedlora_train::{Best, Engine, Progress, Search, TrainOptions};

use super::candidate::{Candidate, Choice, Personalised};
use super::mix::best_between;
use crate::update::{LocalWork, UpdateError};

/// The shortest training alone, as a part of the run's steps; longer ones double.
const SHORTEST_ALONE: usize = 4;
/// The shortest training at home, as a part of the longest.
const SHORTEST_AT_HOME: usize = 4;

/// What a member does after the last round.
#[derive(Debug, Clone, Copy)]
pub enum HomeProgress {
    /// It trains the global adapter further.
    AtHome(Progress),
    /// It trains without the federation.
    Alone(Progress),
}

/// Makes the candidates of one member from the run's last adapter, and compares them on its
/// validation examples. Without such examples there is the global adapter alone.
///
/// # Errors
/// A training that failed, or [`UpdateError::Stopped`] where `keep_going` said so.
pub fn personalise(
    work: &LocalWork,
    plan: &RunPlan,
    global: &Adapter,
    keep_going: &mut dyn FnMut(HomeProgress) -> bool,
) -> Result<Personalised, UpdateError> {
    let (engine, examples) = (work.engine(), work.examples());
    let mut candidate = Candidate {
        choice: Choice::Global,
        adapter: global.clone(),
        validation: None,
        steps: 0,
        mix: None,
    };
    if examples.validation.is_empty() {
        return Ok(Personalised::new(candidate, Vec::new()));
    }
    let loss = engine.evaluate(Some(global), &examples.validation)?.loss;
    candidate.validation = Some(loss);
    let mut others = Vec::new();
    if plan.personalisation.method != PersonalisationMethod::None {
        let (training, validation) = (&examples.training, &examples.validation);
        let options = work.options_at(plan, plan.home_learning_rate())?;
        let mut watch = |progress| keep_going(HomeProgress::AtHome(progress));
        let found = train_at_home(
            engine, plan, global, training, validation, &options, &mut watch,
        )?;
        others.extend(found);
    }
    if plan.personalisation.shadow {
        let first = work.first_adapter(plan)?;
        let (training, validation) = (&examples.training, &examples.validation);
        let options = work.options_at(plan, plan.alone_learning_rate())?;
        let mut watch = |progress| keep_going(HomeProgress::Alone(progress));
        let best = train_alone(
            engine, plan, &first, training, validation, &options, &mut watch,
        )?;
        others.push(Candidate {
            choice: Choice::Local,
            adapter: best.adapter,
            validation: best.loss,
            steps: best.step,
            mix: None,
        });
    }
    Ok(Personalised::new(candidate, others))
}

/// Trains `global` further on one member's examples, for at most the plan's share of steps, and
/// takes the best point between the two on the validation examples. `None` where no training
/// improves it.
///
/// # Errors
/// As [`personalise`].
pub fn train_at_home(
    engine: &Engine,
    plan: &RunPlan,
    global: &Adapter,
    training: &[Example],
    validation: &[Example],
    options: &TrainOptions,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Candidate>, UpdateError> {
    let Some(longest) = NonZeroUsize::new(plan.personalisation.home_steps(plan.steps())) else {
        return Ok(None);
    };
    let search = Search {
        training,
        validation,
        longest,
        shortest: part(longest, SHORTEST_AT_HOME),
    };
    let best = search_with(engine, global, search, options, keep_going)?;
    let Some(loss) = best.loss.filter(|_| best.step > 0) else {
        return Ok(None);
    };
    let (adapter, mix, loss) = best_between(engine, global, best.adapter, loss, validation)?;
    Ok(Some(Candidate {
        choice: Choice::Personal,
        adapter,
        validation: Some(loss),
        steps: best.step,
        mix: Some(mix),
    }))
}

/// Trains from the first adapter on one member's examples alone, at the length that suits them
/// best: at most as many steps as the run has for a member.
///
/// # Errors
/// As [`personalise`].
pub fn train_alone(
    engine: &Engine,
    plan: &RunPlan,
    first: &Adapter,
    training: &[Example],
    validation: &[Example],
    options: &TrainOptions,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Best, UpdateError> {
    let federated = plan.steps();
    let longest = federated + plan.personalisation.home_steps(federated);
    let longest = NonZeroUsize::new(longest).unwrap_or(NonZeroUsize::MIN);
    let search = Search {
        training,
        validation,
        longest,
        shortest: part(longest, SHORTEST_ALONE),
    };
    search_with(engine, first, search, options, keep_going)
}

fn part(whole: NonZeroUsize, parts: usize) -> NonZeroUsize {
    NonZeroUsize::new(whole.get().div_ceil(parts)).unwrap_or(NonZeroUsize::MIN)
}

fn search_with(
    engine: &Engine,
    from: &Adapter,
    search: Search<'_>,
    options: &TrainOptions,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Best, UpdateError> {
    let mut stopped = false;
    let found = engine.best_length(from, search, options, &mut |progress| {
        if keep_going(progress) {
            ControlFlow::Continue(())
        } else {
            stopped = true;
            ControlFlow::Break(())
        }
    });
    let best = found?;
    if stopped {
        return Err(UpdateError::Stopped);
    }
    Ok(best)
}
