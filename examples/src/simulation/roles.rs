//! Who of the members is cut off and where, and who is poisoned: as the options say.

use std::collections::BTreeMap;

use anyhow::anyhow;
use fedlora_common::digest::DigestWriter;
use fedlora_protocol::ids::{MemberName, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::faults::{CutPoint, Cuts};
use super::options::{DropSpec, Options};
use super::poison::Poison;
use super::run::SimulationError;

/// Who is cut off where; by default the last member in round 2, where a quorum remains, and of a
/// robust plan enough groups.
pub(super) fn faults(
    options: &Options,
    plan: &RunPlan,
    names: &[MemberName],
) -> Result<BTreeMap<MemberName, Cuts>, SimulationError> {
    let mut faults: BTreeMap<MemberName, Cuts> = BTreeMap::new();
    let mut cut = |name: &MemberName, round, point| {
        let own = faults.entry(name.clone()).or_default();
        own.push((round, point));
    };
    if options.drop.is_empty() {
        let policy = plan.policy()?;
        let robust = plan.aggregation.robust.as_ref();
        let groups_bear_it = robust.is_none_or(|robust| robust.groups(&policy, 1).is_ok());
        if plan.rounds >= 2 && policy.quorum() < names.len() && groups_bear_it {
            cut(&names[names.len() - 1], RoundNumber(2), CutPoint::Upload);
        }
    }
    for spec in &options.drop {
        let drop = match spec {
            DropSpec::None => continue,
            DropSpec::Percent(percent) => {
                for (round, place) in drawn(*percent, plan, names.len())? {
                    cut(&names[place], round, CutPoint::Upload);
                }
                continue;
            }
            DropSpec::One(drop) => drop,
        };
        let name = member(names, &drop.member, "--drop")?;
        if drop.round.0 > plan.rounds {
            return Err(SimulationError::Usage(anyhow!(
                "--drop names round {}, and there are {}",
                drop.round,
                plan.rounds
            )));
        }
        cut(name, drop.round, drop.point);
    }
    Ok(faults)
}

/// The places of the members that are cut off in each round: so many of a hundred, at least one.
///
/// # Errors
/// [`SimulationError::Usage`] where fewer than a quorum would remain.
fn drawn(
    percent: u8,
    plan: &RunPlan,
    members: usize,
) -> Result<Vec<(RoundNumber, usize)>, SimulationError> {
    let many = (members * usize::from(percent) / 100).max(1);
    let quorum = plan.policy()?.quorum();
    if members - many < quorum {
        return Err(SimulationError::Usage(anyhow!(
            "--drop {percent}% cuts {many} of {members} members off in each round, and a round \
             needs {quorum}"
        )));
    }
    let mut seed = DigestWriter::new("fedlora 1 simulated dropouts");
    let mut rng = StdRng::from_seed(*seed.number(plan.seed()).finish().as_bytes());
    let rounds = (1..=plan.rounds).map(RoundNumber);
    let drawn = rounds.flat_map(|round| {
        let places = sample(&mut rng, members, many);
        places.into_iter().map(move |place| (round, place))
    });
    Ok(drawn.collect())
}

/// Who is poisoned, and how.
pub(super) fn poisons(
    options: &Options,
    names: &[MemberName],
) -> Result<BTreeMap<MemberName, Poison>, SimulationError> {
    let poisons = options.poison.iter().map(|spec| {
        let name = member(names, &spec.member, "--poison")?;
        Ok((name.clone(), spec.poison))
    });
    poisons.collect()
}

/// The member that an option names, or whose number from 1 it gives.
fn member<'a>(
    names: &'a [MemberName],
    asked: &str,
    option: &str,
) -> Result<&'a MemberName, SimulationError> {
    names
        .iter()
        .enumerate()
        .find(|(index, name)| name.as_str() == asked || asked == (index + 1).to_string())
        .map(|(_, name)| name)
        .ok_or_else(|| {
            let known: Vec<_> = names.iter().map(MemberName::as_str).collect();
            SimulationError::Usage(anyhow!(
                "{option} names '{asked}', who is no member: use one of {}, or 1 to {}",
                known.join(", "),
                names.len()
            ))
        })
}
