//! What two ordinary rounds tell of one member that is in the first sum only. The others' losses
//! stay the same from round to round, which is the attacker's best case.

use anyhow::Context;

use fedlora_protocol::fixed::LOSS_STEP;

use super::differencing::first_round;
use super::federation::{EXAMPLES, TargetFederation, VICTIM};
use super::report::Attempt;
use super::round::{AttackedRound, SumOfRound};

/// How fine the harness looks for the ends of an interval, in nats a token.
const GRID: f64 = 0.001;

/// Round 1 with all, a result, and round 2, in which the victim drops out before its upload.
fn two_rounds() -> anyhow::Result<(TargetFederation, SumOfRound, SumOfRound)> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let (first, with) = first_round(&mut federation)?;
    let mut adapter = federation.adapter.clone();
    adapter.add(&federation.part(&first.open)?, &with.mean.delta)?;
    let result = first.result(&federation, &with, &adapter);
    let (signed, all) = (federation.sign(&result), federation.all());
    federation.announce(&signed, &adapter, &all)?;
    federation.follow(&result, adapter);

    let (open, others) = (federation.next_open()?, federation.others());
    let mut round = AttackedRound::open(&mut federation, open, &all)?;
    round.exchange_keys(&mut federation, &all)?;
    round.exchange_shares(&mut federation, &others)?;
    let list = round.list(|_| true);
    round.show_list(&mut federation, &list, &others)?;
    let signed = round.confirmations(&federation, &list);
    round.show_confirmations(&mut federation, signed, &others)?;
    let without = round
        .sum_of_all(&federation)?
        .with_context(|| format!("a dropout cost the round: {}", federation.words()))?;
    Ok((federation, with, without))
}

/// The victim's number of examples, from the total weights.
pub(super) fn exact_counts() -> anyhow::Result<Attempt> {
    let (_, with, without) = two_rounds()?;
    let (before, after) = (with.parts.weight, without.parts.weight);
    // The weight of a class is the fewest examples in it.
    let fewest = before - after;
    let most = 2 * fewest - 1;
    let truth = EXAMPLES[usize::from(VICTIM.0)] as u64;
    let within = (fewest..=most).contains(&truth);
    Ok(Attempt {
        tried: "two ordinary rounds, the second without the victim: the difference of their total \
                weights",
        answer: format!(
            "the weights {before} and {after} differ by {fewest}: the victim has {fewest} to {most} \
             examples, as its class says anyway; truly it has {truth}"
        ),
        held: within && fewest != truth && fewest < most,
    })
}

/// The victim's training loss, from the mean losses.
pub(super) fn loss_differencing() -> anyhow::Result<Attempt> {
    let (federation, with, without) = two_rounds()?;
    let total = |sum: &SumOfRound| {
        let loss = sum.mean.train_loss.context("no loss is published")?;
        anyhow::Ok(f64::from(loss) * sum.parts.survivors as f64)
    };
    let steps = ((total(&with)? - total(&without)?) / LOSS_STEP).round();
    // Without the victim's secret shift, by which its loss was rounded.
    let told = (LOSS_STEP * (steps - 1.0), LOSS_STEP * (steps + 1.0));

    let victim = &federation.members[usize::from(VICTIM.0)];
    let (shift, truth) = (victim.shift(), victim.losses.train);
    let own = shift.steps(truth)?;
    let same = |loss: f64| shift.steps(loss).is_ok_and(|steps| steps == own);
    let reach = |sign: f64| {
        let grid = (1..1000).map(|k| truth + sign * GRID * f64::from(k));
        grid.take_while(|loss| same(*loss)).last().unwrap_or(truth)
    };
    let (low, high) = (reach(-1.0), reach(1.0));
    Ok(Attempt {
        tried: "two ordinary rounds, the second without the victim: the difference of their summed \
                losses",
        answer: format!(
            "the sums differ by {steps} steps of {LOSS_STEP} nat: the victim's loss is between \
             {:.2} and {:.2}; had the attacker its secret shift, between {low:.2} and {high:.2}, \
             {:.2} either way",
            told.0,
            told.1,
            (high - low) / 2.0
        ),
        held: told.0 < truth && truth < told.1 && (high - low) / 2.0 > 0.1 - 2.0 * GRID,
    })
}
