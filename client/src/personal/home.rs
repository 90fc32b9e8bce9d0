//! Training at home: from the global adapter on, or alone from the first one.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_adapter::Adapter;
use fedlora_protocol::plan::{PersonalisationMethod, RunPlan};
use fedlora_train::{Best, Progress, Search, TrainOptions};

use super::candidate::{Candidate, Choice, Personalised};
use super::mix::best_between;
use crate::update::{LocalWork, UpdateError};

/// The shortest training, as a part of the longest; the others double.
const SHORTEST: usize = 4;

/// What a member does after the last round.
#[derive(Debug, Clone, Copy)]
pub enum HomeProgress {
    /// It trains the global adapter further.
    AtHome(Progress),
    /// It trains without the federation.
    Alone(Progress),
}

/// Makes the candidates of one member from the run's result, and compares them on its
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
    let mut candidate = Candidate {
        choice: Choice::Global,
        adapter: global.clone(),
        validation: None,
        steps: 0,
        mix: None,
    };
    let validation = &work.examples().validation;
    if validation.is_empty() {
        return Ok(Personalised::new(candidate, Vec::new()));
    }
    candidate.validation = Some(work.engine().evaluate(Some(global), validation)?.loss);
    let mut others = Vec::new();
    if plan.personalisation.method != PersonalisationMethod::None {
        let mut watch = |progress| keep_going(HomeProgress::AtHome(progress));
        others.extend(train_at_home(work, plan, global, &mut watch)?);
    }
    if plan.personalisation.shadow {
        let mut watch = |progress| keep_going(HomeProgress::Alone(progress));
        let best = train_alone(work, plan, 1, &mut watch)?;
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
/// improves it, or nothing tells.
///
/// # Errors
/// As [`personalise`].
pub fn train_at_home(
    work: &LocalWork,
    plan: &RunPlan,
    global: &Adapter,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Candidate>, UpdateError> {
    let validation = &work.examples().validation;
    let longest = NonZeroUsize::new(plan.home_steps());
    let Some(longest) = longest.filter(|_| !validation.is_empty()) else {
        return Ok(None);
    };
    let options = work.options_at(plan, plan.home_learning_rate())?;
    let best = search(work, global, longest, &options, keep_going)?;
    let Some(loss) = best.loss.filter(|_| best.step > 0) else {
        return Ok(None);
    };
    let (adapter, mix, loss) = best_between(work.engine(), global, best.adapter, loss, validation)?;
    Ok(Some(Candidate {
        choice: Choice::Personal,
        adapter,
        validation: Some(loss),
        steps: best.step,
        mix: Some(mix),
    }))
}

/// Trains from the first adapter on these examples alone, at the length that suits them best: at
/// most as many steps as the run has for `members` members, whose examples they are.
///
/// # Errors
/// As [`personalise`].
pub fn train_alone(
    work: &LocalWork,
    plan: &RunPlan,
    members: usize,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Best, UpdateError> {
    let longest = (plan.steps() + plan.home_steps()) * members;
    let longest = NonZeroUsize::new(longest).unwrap_or(NonZeroUsize::MIN);
    let options = work.options_at(plan, plan.alone_learning_rate())?;
    let first = work.first_adapter(plan)?;
    search(work, &first, longest, &options, keep_going)
}

fn search(
    work: &LocalWork,
    from: &Adapter,
    longest: NonZeroUsize,
    options: &TrainOptions,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Best, UpdateError> {
    let shortest = longest.get().div_ceil(SHORTEST);
    let search = Search {
        training: &work.examples().training,
        validation: &work.examples().validation,
        longest,
        shortest: NonZeroUsize::new(shortest).unwrap_or(NonZeroUsize::MIN),
    };
    let mut stopped = false;
    let found = work
        .engine()
        .best_length(from, search, options, &mut |progress| {
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
