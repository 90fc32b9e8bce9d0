//! Training at home: from the global adapter on, or alone from the first one.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_adapter::Adapter;
use fedlora_protocol::plan::{PersonalisationMethod, RunPlan};
use fedlora_train::{Best, ExampleLoss, Progress, Search, TrainError, TrainOptions};

use super::candidate::{Candidate, Choice, Personalised};
use super::margin::is_clearly_below;
use crate::own::Start;
use crate::update::{LocalWork, UpdateError};

/// The shortest training alone, as a part of the longest; the others double.
const SHORTEST: usize = 4;
/// Trainings at home, each with another order of examples.
const AT_HOME: u64 = 2;

/// What a member does after the last round.
#[derive(Debug, Clone, Copy)]
pub enum HomeProgress {
    /// It trains the global adapter further.
    AtHome(Progress),
    /// It trains without the federation.
    Alone(Progress),
}

/// Makes the candidates of one member from the run's result, and compares them on its
/// validation examples. Without such examples there is the global adapter alone, or with the member's
/// own B where the plan shares A alone.
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
    let start = work.start_at_home(plan, global)?;
    let held = start.whole()?;
    let own_part = held != *global;
    if validation.is_empty() {
        // The global adapter is none by itself where A alone is shared.
        let personal = plan.adapter.factors.shares_a().then(|| Candidate {
            choice: Choice::Personal,
            adapter: held,
            ..candidate.clone()
        });
        return Ok(Personalised::new(candidate, personal, Vec::new()));
    }
    candidate.validation = Some(work.engine().evaluate(Some(global), validation)?.loss);
    let mut alone = Vec::new();
    if plan.personalisation.shadow {
        let mut watch = |progress| keep_going(HomeProgress::Alone(progress));
        alone = train_alone(work, plan, 1, &mut watch)?;
    }
    let (mut personal, mut of_mean) = (None, None);
    if plan.personalisation.method != PersonalisationMethod::None {
        let mut watch = |progress| keep_going(HomeProgress::AtHome(progress));
        if let Some(home) = train_on(work, plan, &start, &alone, &mut watch)? {
            (personal, of_mean) = (Some(home.candidate), home.of_mean);
        }
    }
    if own_part {
        // It is a personal adapter as it is.
        let loss = work.engine().evaluate(Some(&held), validation)?.loss;
        let better = |one: &Candidate| one.validation.is_some_and(|other| other <= loss);
        if !personal.as_ref().is_some_and(better) {
            of_mean = None;
            personal = Some(Candidate {
                choice: Choice::Personal,
                adapter: held,
                validation: Some(loss),
                ..candidate.clone()
            });
        }
    }
    let all = Personalised::new(candidate, personal, alone);
    match of_mean {
        None => Ok(all),
        Some(of_mean) => Ok(all.preferring_mean(&of_mean, |adapter| {
            work.engine().losses(Some(adapter), validation)
        })?),
    }
}

/// Steps of all trainings at home.
pub fn steps_at_home(plan: &RunPlan) -> usize {
    plan.home_steps() * AT_HOME as usize
}

/// Trains `global` further on one member's examples, for at most the plan's share of steps, twice
/// with different orders, and averages. Adapters that were trained apart err in different places, so
/// that their average is often better than any of them.
///
/// Where the member trained `alone`, the adapter is half the mean of the two and half the best of
/// those: some dozens of validation examples tell too little to search for a better mix, and a mix that
/// leans on what was trained alone is hardly ever worse than that. It gives way to the greedy soup of
/// Wortsman et al. (ICML 2022) only where that is clearly better on the validation examples: the
/// better of the two, averaged with the other and with those trained alone, the best first, or with
/// `global` where there are none, each as long as it improves the loss. `None` where nothing improves
/// `global`, or nothing tells.
///
/// # Errors
/// As [`personalise`].
pub fn train_at_home(
    work: &LocalWork,
    plan: &RunPlan,
    global: &Adapter,
    alone: &[Best],
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Candidate>, UpdateError> {
    let home = train_on(work, plan, &Start::of(global.clone()), alone, keep_going)?;
    Ok(home.map(|home| home.candidate))
}

/// What was made at home.
struct Home {
    candidate: Candidate,
    /// Where it is half of what was trained alone: its losses of the validation examples.
    of_mean: Option<Vec<ExampleLoss>>,
}

fn train_on(
    work: &LocalWork,
    plan: &RunPlan,
    start: &Start,
    alone: &[Best],
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Option<Home>, UpdateError> {
    let (engine, validation) = (work.engine(), &work.examples().validation);
    if validation.is_empty() {
        return Ok(None);
    }
    let loss = |adapter: &Adapter| -> Result<f64, TrainError> {
        Ok(engine.evaluate(Some(adapter), validation)?.loss)
    };
    let whole = start.whole()?;
    let options = work.options_at(plan, plan.home_learning_rate())?;
    let mut homes = Vec::new();
    // One length: the last steps of a run, at a rate that falls to nothing.
    let own = work.examples().training.len();
    if let Some(steps) = NonZeroUsize::new(plan.home_steps_with(own)) {
        for number in 0..AT_HOME {
            let options = TrainOptions {
                seed: options.seed.wrapping_add(number),
                ..options.clone()
            };
            homes.extend(search(work, start, (steps, steps), &options, keep_going)?);
        }
    }
    let scored = |best: &Best| best.loss.unwrap_or(f64::INFINITY);
    homes.sort_by(|one, other| scored(one).total_cmp(&scored(other)));
    let steps = homes.iter().map(|best| best.step).sum();
    let (mut average, mut lowest) = match homes.first() {
        Some(best) => (best.adapter.clone(), scored(best)),
        None => (whole.clone(), loss(&whole)?),
    };
    let mut others: Vec<_> = homes
        .iter()
        .skip(1)
        .map(|best| (&best.adapter, 1))
        .collect();
    match alone {
        [] => others.push((&whole, 0)),
        some => others.extend(some.iter().map(|best| (&best.adapter, 0))),
    }
    let (mut parts, mut at_home) = (1_u32, 1_u32);
    for (other, of_home) in others {
        let share = f64::from(parts + 1).recip();
        let Ok(with_other) = average.average(other, share) else {
            // The rank of both together is more than an adapter has.
            break;
        };
        let found = loss(&with_other)?;
        if found < lowest {
            (lowest, average) = (found, with_other);
            (parts, at_home) = (parts + 1, at_home + of_home);
        }
    }
    let candidate = |adapter, validation, mix| Candidate {
        choice: Choice::Personal,
        adapter,
        validation: Some(validation),
        steps,
        mix: Some(mix),
    };
    if let Some(mean) = half_alone(&homes, alone) {
        let of_mean = engine.losses(Some(&mean), validation)?;
        let of_soup = engine.losses(Some(&average), validation)?;
        if !is_clearly_below(&of_soup, &of_mean) {
            return Ok(Some(Home {
                candidate: candidate(mean.clone(), loss(&mean)?, 0.5),
                of_mean: Some(of_mean),
            }));
        }
    }
    // The global adapter itself is a candidate of its own.
    Ok((steps > 0 || parts > 1).then(|| Home {
        candidate: candidate(average, lowest, f64::from(at_home) / f64::from(parts)),
        of_mean: None,
    }))
}

/// Half the mean of what was trained at home, half the best of what was trained alone; nothing where one
/// of them is missing, or the rank of all together is more than an adapter has.
fn half_alone(homes: &[Best], alone: &[Best]) -> Option<Adapter> {
    let (first, others) = homes.split_first()?;
    let mut mean = first.adapter.clone();
    for (count, other) in (2_u32..).zip(others) {
        mean = mean
            .average(&other.adapter, f64::from(count).recip())
            .ok()?;
    }
    mean.average(&alone.first()?.adapter, 0.5).ok()
}

/// Trains from the first adapter on these examples alone, at the length that suits them best: at
/// most as many steps as the run has for `members` members, whose examples they are. Gives the
/// best of each length that was tried, the best of all first.
///
/// # Errors
/// As [`personalise`].
pub fn train_alone(
    work: &LocalWork,
    plan: &RunPlan,
    members: usize,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Vec<Best>, UpdateError> {
    let own = work.examples().training.len().div_ceil(members.max(1));
    let longest = (plan.steps_with(own) + plan.home_steps_with(own)) * members;
    let at_least_one = |steps| NonZeroUsize::new(steps).unwrap_or(NonZeroUsize::MIN);
    let lengths = (
        at_least_one(longest.div_ceil(SHORTEST)),
        at_least_one(longest),
    );
    let options = work.options_at(plan, plan.alone_learning_rate())?;
    let first = Start::of(work.first_adapter(plan)?);
    search(work, &first, lengths, &options, keep_going)
}

fn search(
    work: &LocalWork,
    start: &Start,
    (shortest, longest): (NonZeroUsize, NonZeroUsize),
    options: &TrainOptions,
    keep_going: &mut dyn FnMut(Progress) -> bool,
) -> Result<Vec<Best>, UpdateError> {
    let search = Search {
        beside: start.beside.as_ref(),
        training: &work.examples().training,
        validation: &work.examples().validation,
        longest,
        shortest,
    };
    let mut stopped = false;
    let found = work
        .engine()
        .best_lengths(&start.adapter, search, options, &mut |progress| {
            if keep_going(progress) {
                ControlFlow::Continue(())
            } else {
                stopped = true;
                ControlFlow::Break(())
            }
        });
    let found = found?;
    if stopped {
        return Err(UpdateError::Stopped);
    }
    Ok(found)
}
