//! Differencing: of two sums on one adapter, with and without the victim, the difference is the
//! victim's update. Training gives every member the same delta on the same adapter, which is the
//! attacker's best case.

use anyhow::Context;

use fedlora_client::ledger::FileLedger;
use fedlora_protocol::ids::{Attempt as AttemptNumber, RoundNumber, RunId};

use super::federation::{TargetFederation, VICTIM};
use super::report::Attempt;
use super::round::{AttackedRound, SumOfRound};

/// Another run than the first.
const SECOND_RUN: RunId = RunId([8; 16]);

/// The victim's update, from two sums of which only the first holds it.
pub(super) fn difference(
    round: &AttackedRound,
    with: Option<&SumOfRound>,
    without: Option<&SumOfRound>,
) -> Option<Vec<f64>> {
    let (with, without) = (with?, without?);
    if !with.survivors.contains(&VICTIM) || without.survivors.contains(&VICTIM) {
        return None;
    }
    let weight = round.weight(VICTIM) as f64;
    let pairs = with.total().into_iter().zip(without.total());
    Some(
        pairs
            .map(|(with, without)| (with - without) / weight)
            .collect(),
    )
}

/// An ordinary first round of all: it must come to a sum.
pub(super) fn first_round(
    federation: &mut TargetFederation,
) -> anyhow::Result<(AttackedRound, SumOfRound)> {
    let (open, all) = (federation.next_open()?, federation.all());
    let round = AttackedRound::whole(federation, open, &all)?;
    let sum = round
        .sum_of_all(federation)?
        .with_context(|| format!("an ordinary round came to no sum: {}", federation.words()))?;
    Ok((round, sum))
}

/// No result is published; the next M0 is of a round far ahead.
pub(super) fn skipped_round() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let (first, with) = first_round(&mut federation)?;
    let mut open = federation.next_open()?;
    open.round = RoundNumber(4_000_000_000);
    let others = federation.others();
    let second = AttackedRound::whole(&mut federation, open, &others)?;
    let without = second.sum_of_all(&federation)?;
    Ok(Attempt::on_update(
        "round 1 with all, no result, then M0 of round 4,000,000,000 on the same adapter, to all \
         but the victim",
        federation.words(),
        difference(&first, Some(&with), without.as_ref()).as_deref(),
        &federation.aim(&first.open)?,
    ))
}

/// First another attempt at the round, then the next round on a result that leaves the adapter as
/// it is.
pub(super) fn second_list() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let (first, with) = first_round(&mut federation)?;
    let others = federation.others();
    let mut open = first.open.clone();
    open.attempt = AttemptNumber(2);
    let again = AttackedRound::whole(&mut federation, open, &others)?;
    let mut without = again.sum_of_all(&federation)?;

    if without.is_none() {
        let adapter = federation.adapter.clone();
        let result = first.result(&federation, &with, &adapter);
        let signed = federation.sign(&result);
        federation.announce(&signed, &adapter, &others)?;
        federation.follow(&result, adapter);
        let open = federation.next_open()?;
        let next = AttackedRound::whole(&mut federation, open, &others)?;
        without = next.sum_of_all(&federation)?;
    }
    Ok(Attempt::on_update(
        "round 1 with all; then, without the victim, another attempt at it, and round 2 on a \
         made-up result that leaves the adapter as it is",
        federation.words(),
        difference(&first, Some(&with), without.as_ref()).as_deref(),
        &federation.aim(&first.open)?,
    ))
}

/// Members start again with the log and roster that they have, and are shown another run whose
/// plan gives the same first adapter.
pub(super) fn second_run() -> anyhow::Result<Attempt> {
    let mut federation = TargetFederation::joined(|_| ())?;
    let (first, with) = first_round(&mut federation)?;
    let others = federation.others();
    federation.begin(SECOND_RUN);
    for &member in &others {
        federation.restart(member);
    }
    federation.join(&others)?;
    let open = federation.next_open()?;
    let second = AttackedRound::whole(&mut federation, open, &others)?;
    let without = second.sum_of_all(&federation)?;
    Ok(Attempt::on_update(
        "round 1 with all; then round 1 of another run whose first adapter is the same, without \
         the victim",
        federation.words(),
        difference(&first, Some(&with), without.as_ref()).as_deref(),
        &federation.aim(&first.open)?,
    ))
}

/// Two runs at once, each with a process of its own at every member; the two processes of a member
/// share its directory. Both rounds are open before either reveals.
pub(super) fn second_process() -> anyhow::Result<Attempt> {
    let folder = tempfile::tempdir().context("a folder for the members' logs")?;
    let ledger = |place: usize| {
        let path = folder.path().join(format!("member-{place}.json"));
        Box::new(FileLedger::new(path)) as _
    };
    let mut with_victim = TargetFederation::joined(|_| ())?;
    with_victim.replace_ledgers(ledger);
    let mut without_victim = TargetFederation::new(|_| ())?;
    without_victim.replace_ledgers(ledger);
    without_victim.begin(SECOND_RUN);
    let (all, others) = (with_victim.all(), with_victim.others());
    without_victim.join(&others)?;

    let mut sides = [(&mut with_victim, &all), (&mut without_victim, &others)];
    let mut rounds = Vec::new();
    for (federation, to) in &mut sides {
        let open = federation.next_open()?;
        let mut round = AttackedRound::open(federation, open, to)?;
        round.exchange_keys(federation, to)?;
        round.exchange_shares(federation, to)?;
        let list = round.list(|_| true);
        round.show_list(federation, &list, to)?;
        let signed = round.confirmations(federation, &list);
        rounds.push((round, signed));
    }
    let outcomes: Vec<anyhow::Result<AttackedRound>> = std::thread::scope(|scope| {
        let racing: Vec<_> = sides
            .into_iter()
            .zip(rounds)
            .map(|((federation, to), (mut round, signed))| {
                scope.spawn(move || {
                    round.show_confirmations(federation, signed, to)?;
                    Ok(round)
                })
            })
            .collect();
        let joined = racing.into_iter().map(|racing| racing.join());
        joined
            .map(|outcome| outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("a process panicked"))))
            .collect()
    });
    let mut rounds = outcomes.into_iter();
    let (first, second) = (
        rounds.next().context("the round with the victim")??,
        rounds.next().context("the round without the victim")??,
    );
    let with = first.sum_of_all(&with_victim)?;
    let without = second.sum_of_all(&without_victim)?;
    let both = [with_victim.words(), without_victim.words()].join("; in the other process ");
    Ok(Attempt::on_update(
        "round 1 of two runs on one first adapter at once, with and without the victim, in two \
         processes on each member's directory",
        both,
        difference(&first, with.as_ref(), without.as_ref()).as_deref(),
        &with_victim.aim(&first.open)?,
    ))
}
