//! What was promised: of each run, of its results, of what members hold, and of what is left behind.

use std::collections::BTreeMap;
use std::fs;

use fedlora_aggregator::run_directory::{EndOutcome, RunDirectory};
use fedlora_aggregator::{audit, audit_log};
use fedlora_client::receipts;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::RingSum;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::{Roster, RunPlan};
use fedlora_protocol::receipt::{read_results, whole_lines};
use fedlora_protocol::wire::messages::RoundResult;

use super::world::World;

/// The digests of each run's results, in order.
type Chains = BTreeMap<RunId, Vec<Digest>>;

/// Checks all that can be seen once every run is over.
pub(super) fn check(world: &World<'_>, gentle: bool) {
    let mut chains = Chains::new();
    world.observer.seen().figures.runs += world.queued.len() as u64;
    for (run, plan) in &world.queued {
        if world.is_forgotten(*run) {
            continue;
        }
        let breaks = |what: String| world.observer.breaks(format!("run {run}: {what}"));
        if world.operator.directory.queue().contains(*run) && world.is_over(*run) {
            breaks("its plan is in the queue still".to_owned());
        }
        match world.operator.run(*run) {
            Some(folder) => {
                let results = check_run(world, &folder, (*run, plan), gentle);
                chains.insert(*run, results);
            }
            None if world.is_over(*run) => {}
            None => breaks("it was queued, and nobody has begun it".to_owned()),
        }
    }
    check_receipts(world, &chains);
    check_members(world);
    check_log(world);
    let seen = world.observer.seen().contradictions.clone();
    if !world.facts.restored {
        for one in seen {
            world.observer.breaks(one);
        }
    }
}

/// Checks what the operator has of a run; gives the digests of its results.
fn check_run(
    world: &World<'_>,
    folder: &RunDirectory,
    (run, plan): (RunId, &RunPlan),
    gentle: bool,
) -> Vec<Digest> {
    let breaks = |what: String| world.observer.breaks(format!("run {run}: {what}"));
    let end = match folder.end() {
        Ok(Some(end)) => end,
        // That it has no end is told already.
        Ok(None) => {
            let results = results_of(folder).unwrap_or_default();
            return results.iter().map(RoundResult::digest).collect();
        }
        Err(error) => {
            breaks(format!("how it ended cannot be read: {error}"));
            return Vec::new();
        }
    };
    for (what, is_left) in [
        (
            "masked updates",
            fs::read_dir(folder.uploads()).is_ok_and(|files| files.count() > 0),
        ),
        ("its journal", folder.journal().exists()),
        (
            "the mark of an open run",
            folder.audit().join("open").exists(),
        ),
    ] {
        if is_left {
            breaks(format!("it is over and has left {what}"));
        }
    }
    let results = results_of(folder).unwrap_or_else(|error| {
        breaks(error);
        Vec::new()
    });
    let aborted = world.facts.aborted.contains(&run);
    if gentle
        && !aborted
        && (end.outcome, results.len()) != (EndOutcome::Finished, plan.rounds as usize)
    {
        let failure = end.failure.unwrap_or_default();
        breaks(format!(
            "nothing was in its way, and it ended after {} of {} rounds: {failure}",
            results.len(),
            plan.rounds
        ));
    }
    if !folder.receipt().exists() {
        return Vec::new();
    }
    if let Err(error) = audit::verified(folder) {
        breaks(format!("it does not verify: {error}"));
    }
    let roster = fs::read(folder.roster()).ok();
    let roster = roster.and_then(|text| serde_json::from_slice::<Roster>(&text).ok());
    let Some(roster) = roster else {
        breaks("it has results and no roster".to_owned());
        return Vec::new();
    };
    let is_steady = gentle && world.is_steady();
    for result in &results {
        check_result(world, (&roster, plan), result, is_steady);
        if folder.audit().exists() {
            match audit::replay(folder, result.round) {
                Ok(report) if report.matches() => {}
                Ok(report) => breaks(format!(
                    "round {} does not replay: {:?}",
                    result.round, report.findings
                )),
                Err(error) => breaks(format!(
                    "round {} cannot be replayed: {error}",
                    result.round
                )),
            }
        }
    }
    results.iter().map(RoundResult::digest).collect()
}

fn results_of(folder: &RunDirectory) -> Result<Vec<RoundResult>, String> {
    let text = fs::read(folder.results()).unwrap_or_default();
    if whole_lines(&text).len() != text.len() {
        return Err("its results end within a line".to_owned());
    }
    let results = read_results(&text).map_err(|error| error.to_string())?;
    Ok(results
        .iter()
        .map(|result| result.claimed().clone())
        .collect())
}

/// Checks that a result is of the plain sum of its survivors' updates, of enough of them, and of all
/// whose update was acknowledged.
fn check_result(
    world: &World<'_>,
    (roster, plan): (&Roster, &RunPlan),
    result: &RoundResult,
    is_steady: bool,
) {
    let (run, round) = (result.run, result.round);
    let attempt = (run, round, result.attempt);
    let breaks = |what: String| {
        let what = format!("run {run}, round {round}: {what}");
        world.observer.breaks(what);
    };
    let minimum = plan.policy().expect("the plan was checked").minimum();
    let whole = result.survivors.len() == plan.members;
    if is_steady && !whole {
        breaks("nothing was in its way, and a member is missing in the sum".to_owned());
    }
    {
        let figures = &mut world.observer.seen().figures;
        figures.results += 1;
        figures.retried += u64::from(result.attempt.0 > 1);
        figures.partial += u64::from(!whole);
    }
    if result.survivors.len() < minimum {
        let found = result.survivors.len();
        breaks(format!("a sum of {found} members, below {minimum}"));
    }
    let names = result
        .survivors
        .iter()
        .filter_map(|index| roster.get(*index));
    let names: Vec<_> = names.map(|entry| entry.name.to_string()).collect();
    let mask = plan.aggregation.bits.mask();
    let mut missing = Vec::new();
    let mut total = Vec::new();
    {
        let seen = world.observer.seen();
        for name in &names {
            match seen.lanes.get(&(attempt, name.clone())) {
                Some(lanes) => {
                    total.resize(lanes.len(), 0_u32);
                    for (total, lane) in total.iter_mut().zip(lanes) {
                        *total = total.wrapping_add(*lane) & mask;
                    }
                }
                None => missing.push(name.clone()),
            }
        }
    }
    if !missing.is_empty() {
        breaks(format!("{missing:?} made no update that is in the sum"));
    } else if RingSum(total).digest() != result.sum {
        breaks("the sum is not that of its survivors' updates".to_owned());
    }
    if world.facts.restored {
        return;
    }
    let seen = world.observer.seen();
    let stored = seen.stored.iter().filter(|(of, _)| *of == attempt);
    let lost: Vec<_> = stored
        .filter(|(_, name)| !names.contains(name))
        .map(|(_, name)| name.clone())
        .collect();
    drop(seen);
    if !lost.is_empty() {
        breaks(format!(
            "the acknowledged updates of {lost:?} are not in the sum"
        ));
    }
}

/// Checks that the audit log verifies, and leads to what the directory holds.
fn check_log(world: &World<'_>) {
    // The copy that was put back was made while the aggregator ran.
    if world.facts.restored {
        return;
    }
    match audit_log::verify(&world.operator.root, &[]) {
        Ok(verified) => {
            for finding in verified.findings {
                let what = format!("the audit log: {finding:?}");
                world.observer.breaks(what);
            }
        }
        Err(error) => world.observer.breaks(format!("the audit log: {error}")),
    }
}

/// Checks that what members hold of each run is the operator's chain, or its beginning.
fn check_receipts(world: &World<'_>, chains: &Chains) {
    for member in &world.members {
        let breaks = |what: String| world.observer.breaks(format!("{}: {what}", member.name));
        let folders = receipts::folders(&member.root.join("runs")).unwrap_or_default();
        for folder in folders {
            let kept = match receipts::verify(&folder) {
                Ok(kept) => kept,
                Err(error) => {
                    breaks(format!("its receipts do not verify: {error}"));
                    continue;
                }
            };
            if world.facts.restored {
                continue;
            }
            let run = kept.verified.run;
            let own: Vec<_> = kept
                .verified
                .results
                .iter()
                .map(RoundResult::digest)
                .collect();
            let same = chains
                .get(&run)
                .is_some_and(|chain| chain.starts_with(&own));
            if !same {
                let own = own.len();
                breaks(format!(
                    "it holds {own} results of run {run} that the operator has not"
                ));
            }
        }
    }
}

/// Checks that who was let in is a member, where nobody has removed it.
fn check_members(world: &World<'_>) {
    if world.facts.restored || world.facts.removed {
        return;
    }
    let members = match world.operator.registry().members() {
        Ok(members) => members,
        Err(error) => {
            return world
                .observer
                .breaks(format!("the members cannot be read: {error}"));
        }
    };
    for one in world.members.iter().filter(|one| one.has_joined()) {
        if !members
            .iter()
            .any(|record| record.name.as_str() == one.name)
        {
            world
                .observer
                .breaks(format!("{} has joined, and is no member", one.name));
        }
    }
}
