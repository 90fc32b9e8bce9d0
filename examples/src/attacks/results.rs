//! Results that differ between members, or that no sum gives: the aggregator signs what it likes.

use anyhow::Context;

use fedlora_adapter::Adapter;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::plan::{FactorSchedule, RunPlan};
use fedlora_protocol::wire::Verified;
use fedlora_protocol::wire::messages::RoundResult;

use super::differencing::first_round;
use super::federation::TargetFederation;
use super::report::Attempt;
use super::round::AttackedRound;

/// How far the chosen model is from the one before, in multiples of the clip.
const LONG_STEP: f32 = 10.0;

/// A federation whose halves were told different results of round 1.
struct Split {
    federation: TargetFederation,
    halves: [Vec<MemberIndex>; 2],
    results: [RoundResult; 2],
}

impl Split {
    fn new() -> anyhow::Result<Self> {
        let mut federation = TargetFederation::joined(|_| ())?;
        let (round, sum) = first_round(&mut federation)?;
        let mut adapter = federation.adapter.clone();
        adapter.add(&federation.part(&round.open)?, &sum.mean.delta)?;
        let truth = round.result(&federation, &sum, &adapter);
        let mut other = truth.clone();
        other.train_loss = other.train_loss.map(|loss| loss + 1.0);
        let results = [truth, other];
        let all = federation.all();
        let (first, second) = all.split_at(all.len() / 2);
        let halves = [first.to_vec(), second.to_vec()];
        for (result, half) in results.iter().zip(&halves) {
            let signed = federation.sign(result);
            let holders = federation.announce(&signed, &adapter, half)?;
            anyhow::ensure!(holders == *half, "a result that follows was refused");
        }
        federation.follow(&results[0], adapter);
        Ok(Self {
            federation,
            halves,
            results,
        })
    }

    /// One M0 for all, which continues from the first half's result. Whether it gives a sum.
    fn one_open(&mut self) -> anyhow::Result<bool> {
        let (open, all) = (self.federation.next_open()?, self.federation.all());
        let round = AttackedRound::whole(&mut self.federation, open, &all)?;
        Ok(round.sum_of_all(&self.federation)?.is_some())
    }

    /// To each half the M0 that continues from its own result. Whether anybody seals shares for
    /// the other half.
    fn two_opens(&mut self) -> anyhow::Result<bool> {
        let first = self.federation.next_open()?;
        let mut second = first.clone();
        second.previous = self.results[1].digest();
        let mut round = AttackedRound::open(&mut self.federation, first, &self.halves[0])?;
        let other = AttackedRound::open(&mut self.federation, second, &self.halves[1])?;
        round.keys.extend(other.keys);
        let all = self.federation.all();
        round.exchange_keys(&mut self.federation, &all)?;
        Ok(!round.deals.is_empty())
    }
}

/// Members on different results are to meet in one sum.
pub(super) fn other_result() -> anyhow::Result<Attempt> {
    let mut one = Split::new()?;
    let summed = one.one_open()?;
    let mut two = Split::new()?;
    let shared = two.two_opens()?;

    let mut forged = TargetFederation::joined(|_| ())?;
    let (round, sum) = first_round(&mut forged)?;
    let adapter = forged.adapter.clone();
    let result = round.result(&forged, &sum, &adapter);
    let (key, previous) = (IdentityKey::from_bytes(&[201; 32]), result.previous);
    let signed = Verified::sign(result, &key, &previous).unverified().clone();
    let all = forged.all();
    let believers = forged.announce(&signed, &adapter, &all)?.len();
    Ok(Attempt {
        tried: "round 1, then one result to half of the members and another to the others; round 2 \
                on the first, and on each half's own; and a result that another key signed",
        answer: format!(
            "one M0: {}; an M0 for each half: {}; another key: {}",
            one.federation.words(),
            two.federation.words(),
            forged.words()
        ),
        held: !summed && !shared && believers == 0,
    })
}

/// Only B is trained; the result changes A.
pub(super) fn chosen_model_frozen() -> anyhow::Result<Attempt> {
    chosen_model(
        "round 1 of B alone with all, then a result whose adapter has another A",
        |plan| plan.adapter.factors = FactorSchedule::FreezeA,
        |values| values[0] += 0.5,
    )
}

/// The result's adapter is further away than a mean of clipped deltas can be.
pub(super) fn chosen_model_step() -> anyhow::Result<Attempt> {
    chosen_model(
        "round 1 with all, then a result whose adapter is ten times the clip from the one before",
        |_| (),
        |values| values[0] += LONG_STEP,
    )
}

fn chosen_model(
    tried: &'static str,
    plan: impl FnOnce(&mut RunPlan),
    change: impl FnOnce(&mut [f32]),
) -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(plan)?;
    let training = train_from(&mut federation, change)?;
    Ok(Attempt {
        tried,
        answer: format!(
            "{}; {training} members would train from the chosen model",
            federation.words()
        ),
        held: training == 0,
    })
}

/// Publishes a chosen model as the result of round 1; gives how many members take part in round 2
/// on it.
pub(super) fn train_from(
    federation: &mut TargetFederation,
    change: impl FnOnce(&mut [f32]),
) -> anyhow::Result<usize> {
    let (round, sum) = first_round(federation)?;
    let held = &federation.adapter;
    let mut values = held.values().to_vec();
    change(&mut values);
    let chosen = Adapter::new(held.config().clone(), held.layout().clone(), values)
        .context("the chosen model")?;
    let result = round.result(federation, &sum, &chosen);
    let (signed, all) = (federation.sign(&result), federation.all());
    federation.announce(&signed, &chosen, &all)?;
    federation.follow(&result, chosen);
    let open = federation.next_open()?;
    let next = AttackedRound::open(federation, open, &all)?;
    Ok(next.keys.len())
}
