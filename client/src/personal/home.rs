//! Training at home: from the global adapter on, or alone from the first one.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_adapter::Adapter;
use fedlora_protocol::plan::{PersonalisationMethod, RunPlan};
use fedlora_train::{Best, Progress, Search, TrainOptions};

use super::candidate::{Candidate, Choice, Personalised};
use crate::update::{LocalWork, UpdateError};

/// The shortest training alone, as a part of the longest; the others double.
const SHORTEST: usize = 4;
/// Shares of the adapter trained at home, beside the whole, that are tried in the average.
const SHARES: [f64; 3] = [0.25, 0.5, 0.75];

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
    if plan.personalisation.method != PersonalisationMethod::None {
        let mut watch = |progress| keep_going(HomeProgress::AtHome(progress));
        let alone = others.first().map(|alone| &alone.adapter);
        let personal = train_at_home(work, plan, global, alone, &mut watch)?;
        // Of equal ones the personal adapter comes first.
        others.splice(0..0, personal);
    }
    Ok(Personalised::new(candidate, others))
}

/// Trains `global` further on one member's examples, for at most the plan's share of steps, and
/// averages it with the adapter that the member trained `alone`, or with `global` where there is
/// none, in the shares that do best on the validation examples. Two adapters that were trained
/// apart err in different places, so that their average is often better than either (Wortsman et
/// al., ICML 2022). `None` where nothing improves `global`, or nothing tells.
///
/// # Errors
/// As [`personalise`].
pub fn train_at_home(
    work: &LocalWork,
    plan: &RunPlan,
    global: &Adapter,
    alone: Option<&Adapter>,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Candidate>, UpdateError> {
    let (engine, validation) = (work.engine(), &work.examples().validation);
    if validation.is_empty() {
        return Ok(None);
    }
    let options = work.options_at(plan, plan.home_learning_rate())?;
    let home = match NonZeroUsize::new(plan.home_steps()) {
        // One length: the last steps of a run, at a rate that falls to nothing.
        Some(steps) => search(work, global, (steps, steps), &options, keep_going)?,
        None => Best {
            adapter: global.clone(),
            loss: Some(engine.evaluate(Some(global), validation)?.loss),
            step: 0,
            length: 0,
        },
    };
    let mut best = Candidate {
        choice: Choice::Personal,
        adapter: home.adapter.clone(),
        validation: home.loss,
        steps: home.step,
        mix: Some(1.0),
    };
    if home.step == 0 && alone.is_none() {
        return Ok(None);
    }
    for share in SHARES {
        let mixed = alone.unwrap_or(global).average(&home.adapter, share)?;
        let loss = Some(engine.evaluate(Some(&mixed), validation)?.loss);
        if loss < best.validation {
            best = Candidate {
                adapter: mixed,
                validation: loss,
                mix: Some(share),
                ..best
            };
        }
    }
    // The global adapter itself is a candidate of its own.
    Ok((best.steps > 0 || best.mix < Some(1.0)).then_some(best))
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
    let at_least_one = |steps| NonZeroUsize::new(steps).unwrap_or(NonZeroUsize::MIN);
    let lengths = (
        at_least_one(longest.div_ceil(SHORTEST)),
        at_least_one(longest),
    );
    let options = work.options_at(plan, plan.alone_learning_rate())?;
    let first = work.first_adapter(plan)?;
    search(work, &first, lengths, &options, keep_going)
}

fn search(
    work: &LocalWork,
    from: &Adapter,
    (shortest, longest): (NonZeroUsize, NonZeroUsize),
    options: &TrainOptions,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Best, UpdateError> {
    let search = Search {
        training: &work.examples().training,
        validation: &work.examples().validation,
        longest,
        shortest,
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
