//! Plans that lay members bare: the aggregator writes them, and each member's floors judge them.

use super::differencing::first_round;
use super::federation::TargetFederation;
use super::report::Attempt;
use super::results::train_from;

/// A clip that bounds nothing.
const HUGE_CLIP: f32 = 1e6;

/// An update of one step on one example is that example's gradient.
pub(super) fn one_record_plan() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::new(|plan| {
        plan.training.steps = 1;
        plan.training.batch_size = 1;
        plan.training.accumulation = 1;
    })?;
    let all = federation.all();
    let joined = federation.join(&all)?.len();
    let mut answer = federation.words();
    if joined == all.len() {
        let (_, sum) = first_round(&mut federation)?;
        let count = sum.survivors.len();
        answer += &format!("; the attacker has a sum over {count} examples, one of each member");
    }
    Ok(Attempt {
        tried: "a plan with one step on one example",
        answer,
        held: joined == 0,
    })
}

/// Within a huge clip any model is a possible result.
pub(super) fn huge_clip() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::new(|plan| plan.aggregation.clip = HUGE_CLIP)?;
    let all = federation.all();
    let joined = federation.join(&all)?.len();
    let training = match joined == all.len() {
        true => train_from(&mut federation, |values| values[0] += HUGE_CLIP / 2.0)?,
        false => 0,
    };
    Ok(Attempt {
        tried: "a plan whose clip is 1,000,000, to have any model taken for a mean",
        answer: format!(
            "{}; {training} members would train from the chosen model",
            federation.words()
        ),
        held: joined == 0 && training == 0,
    })
}
