//! The federation itself: one aggregator and its members in one process, joined by invitations
//! and talking over the loopback, each with a directory, keys and certificate of its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use fedlora_adapter::Adapter;
use fedlora_aggregator::config::AggregatorConfig;
use fedlora_aggregator::directory::Directory;
use fedlora_aggregator::engine::RunEvent;
use fedlora_aggregator::registry::InvitationFor;
use fedlora_aggregator::{Aggregator, Clock, SystemClock};
use fedlora_client::directory::MemberDirectory;
use fedlora_client::enrol;
use fedlora_client::federation::{MemberEvent, Participant, RoundReport, RoundWork};
use fedlora_protocol::fixed::RoundSum;
use fedlora_protocol::ids::{MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::plan::{RunEnd, RunPlan};
use fedlora_protocol::round::member::RunOutcome;
use fedlora_protocol::wire::messages::RoundResult;
use fedlora_shell::now;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::drift::Drift;
use super::faults::{Cuts, FaultyConnector};
use super::poison::Poison;
use super::progress::Bars;
use super::report::RoundFigures;
use super::run::SimulationError;
use super::scene::Scene;
use super::watched::{EncodedLanes, WatchedWork};

/// A federation that ran to its end.
#[derive(Debug)]
pub(super) struct Federation {
    /// The run's result.
    pub(super) adapter: Adapter,
    pub(super) end: RunEnd,
    pub(super) rounds: Vec<RoundFigures>,
    pub(super) took_part: BTreeMap<MemberName, u32>,
}

/// What is known of one round while it runs.
#[derive(Default)]
struct Sight {
    opened: Option<Instant>,
    done: Option<(RoundResult, Option<bool>, f64)>,
    reports: Vec<RoundReport>,
    attempts: u32,
    drift: Option<f64>,
    taken_back: bool,
}

/// How a federation is run.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    pub(super) scene: Scene<'a>,
    /// Whether each unmasked sum is checked.
    pub(super) verify_sum: bool,
    /// Where operator and members have their directories.
    pub(super) folder: &'a Path,
    pub(super) poison: &'a BTreeMap<MemberName, Poison>,
}

/// Runs the plan with the given members, some of them cut off.
pub(super) async fn run(
    setting: Setting<'_>,
    mut faults: BTreeMap<MemberName, Cuts>,
) -> Result<Federation, SimulationError> {
    let Setting {
        scene,
        verify_sum,
        folder,
        poison,
    } = setting;
    let Scene {
        engine,
        data,
        plan,
        jobs,
        bars,
    } = scene;
    let operator = folder.join("operator");
    // Port 0: the system picks free ones.
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = AggregatorConfig::new("simulation", any).context("the configuration")?;
    Directory::init(&operator, &config, SystemClock.valid_from())
        .context("the operator's directory")?;
    let aggregator = Aggregator::bind(&operator, Arc::new(SystemClock))?;
    let (registry, fingerprint) = (aggregator.registry(), aggregator.fingerprint());
    let join_address = aggregator
        .join_address()
        .context("the enrolment endpoint")?
        .to_string();
    let (run_events, mut run_watch) = mpsc::unbounded_channel();
    let serving = tokio::spawn(aggregator.run(plan.clone(), run_events));

    let names: Vec<MemberName> = data
        .institutions
        .iter()
        .map(|one| one.name.clone())
        .collect();
    let gate = Arc::new(Semaphore::new(jobs));
    let lanes = verify_sum.then(EncodedLanes::default);
    let drift = Drift::default();
    let reconnect = Duration::from_secs(plan.timeouts.reconnect);
    let (events, mut watch) = mpsc::unbounded_channel();
    let mut members = JoinSet::new();
    let homes = data
        .institutions
        .iter()
        .map(|one| folder.join("members").join(one.name.as_str()));
    let homes: Vec<_> = homes.collect();
    for (one, home) in data.institutions.iter().zip(&homes) {
        let expires = now().after(Duration::from_secs(3600));
        let token = registry
            .invite(
                (one.name.clone(), InvitationFor::NewMember),
                join_address.clone(),
                fingerprint,
                expires,
            )
            .with_context(|| format!("inviting {}", one.name))?;
        enrol::join(&token, home, now(), Default::default())
            .await
            .with_context(|| format!("{} joining", one.name))?;
    }
    // The simulator made every member: each accepts the roster of them all.
    let roster = registry.roster().context("the roster")?.digest();
    for ((index, one), home) in data.institutions.iter().enumerate().zip(&homes) {
        let (directory, mut membership) =
            MemberDirectory::open(home).with_context(|| format!("{}'s directory", one.name))?;
        let member = MemberIndex(index as u16);
        let poison = poison.get(&one.name).copied();
        let work = WatchedWork::new(
            engine,
            one,
            member,
            plan.seed(),
            poison,
            lanes.clone(),
            drift.clone(),
        );
        membership.config.weight_class = Some(work.weight_class());
        // A simulation may be as short as one likes: its members have nothing to protect.
        membership.config.floors.examples = 1;
        membership.config.floors.exposure = 1.0;
        let (own_events, mut own_watch) = mpsc::unbounded_channel();
        let cuts = faults.remove(&one.name).unwrap_or_default();
        let participant = Participant::new(
            membership,
            Arc::new(work),
            Box::new(directory.ledger()),
            Box::new(directory.roster_pin(Some(roster))),
            own_events,
        )
        .with_gate(Arc::clone(&gate))
        .map_connector(|quic| FaultyConnector::new(quic, cuts, reconnect))
        .with_patience(Duration::from_secs(60));
        let events = events.clone();
        tokio::spawn(async move {
            while let Some(event) = own_watch.recv().await {
                let _ = events.send((member, event));
            }
        });
        let name = one.name.clone();
        members.spawn(async move { (name, participant.run().await) });
    }
    drop(events);

    let mut outcomes: BTreeMap<MemberName, RunOutcome> = BTreeMap::new();
    let mut sights: BTreeMap<RoundNumber, Sight> = BTreeMap::new();
    let mut watching = (true, true, true);
    while watching.0 || watching.1 || watching.2 {
        tokio::select! {
            event = run_watch.recv(), if watching.0 => match event {
                Some(event) => {
                    on_run_event(event, &mut sights, plan, &names, lanes.as_ref(), &drift, bars);
                }
                None => watching.0 = false,
            },
            event = watch.recv(), if watching.1 => match event {
                Some((member, event)) => {
                    on_member_event(member, event, &mut sights, &names, bars);
                }
                None => watching.1 = false,
            },
            ended = members.join_next(), if watching.2 => match ended {
                Some(Ok((name, Ok(outcome)))) => {
                    outcomes.insert(name, outcome);
                }
                Some(Ok((name, Err(source)))) => {
                    return Err(SimulationError::Member {
                        name,
                        source: Box::new(source),
                    });
                }
                Some(Err(panic)) => return Err(anyhow::Error::new(panic).into()),
                None => watching.2 = false,
            },
        }
    }
    serving.await.context("the aggregator")??;
    let took_part = outcomes
        .iter()
        .map(|(name, outcome)| (name.clone(), outcome.took_part))
        .collect();
    let (adapter, end) = outcomes
        .into_values()
        .next()
        .map(|outcome| (outcome.adapter, outcome.end))
        .context("the federation has members")?;
    let rounds = sights
        .into_values()
        .filter_map(|sight| figures(sight, &names))
        .collect();
    Ok(Federation {
        adapter,
        end,
        rounds,
        took_part,
    })
}

fn on_run_event(
    event: RunEvent,
    sights: &mut BTreeMap<RoundNumber, Sight>,
    plan: &RunPlan,
    names: &[MemberName],
    lanes: Option<&EncodedLanes>,
    drift: &Drift,
    bars: &Bars,
) {
    match event {
        RunEvent::RoundOpened { round, attempt } => {
            let sight = sights.entry(round).or_default();
            sight.opened.get_or_insert_with(Instant::now);
            sight.attempts = attempt.0;
            let steps = u64::from(plan.training.steps) * names.len() as u64;
            bars.begin(&format!("round {round} of {}", plan.rounds), steps);
        }
        RunEvent::RoundDone { result, sum, .. } => {
            let sight = sights.entry(result.round).or_default();
            let exact = lanes.map(|lanes| is_exact(lanes, &result, &sum, plan));
            let took = sight.opened.map_or(0.0, |at| at.elapsed().as_secs_f64());
            let verified = match exact {
                Some(true) => ", sum exact",
                Some(false) => ", SUM NOT EXACT",
                None => "",
            };
            sight.taken_back =
                plan.rollback
                    .takes_back(result.round, result.survivors.len(), result.votes);
            let back = match sight.taken_back {
                true => "; most members found the step before harmful: it is taken back",
                false => "",
            };
            bars.line(&format!(
                "round {} done in {took:.1} s: {} in the sum, {} dropped{verified}{back}",
                result.round,
                result.survivors.len(),
                result.dropped.len()
            ));
            sight.drift = drift.take(result.round);
            sight.done = Some((result, exact, took));
        }
        RunEvent::RoundFailed {
            round,
            attempt,
            reason,
        } => bars.line(&format!(
            "round {round}, attempt {attempt}, failed: {reason}"
        )),
        RunEvent::MemberReady { .. }
        | RunEvent::Phase { .. }
        | RunEvent::Rejected { .. }
        | RunEvent::Blamed { .. } => {}
    }
}

fn on_member_event(
    member: MemberIndex,
    event: MemberEvent,
    sights: &mut BTreeMap<RoundNumber, Sight>,
    names: &[MemberName],
    bars: &Bars,
) {
    let name = &names[usize::from(member.0)];
    match event {
        MemberEvent::Training { progress, .. } => {
            bars.tick(format!("{name}, loss {:.3}", progress.loss));
        }
        MemberEvent::Left { round, reason } => {
            bars.line(&format!("{name} left round {round}: {reason}"));
        }
        MemberEvent::RoundDone(report) => {
            sights.entry(report.round).or_default().reports.push(report);
        }
        _ => {}
    }
}

/// Adds up what the survivors encoded, which no aggregator could, and compares.
fn is_exact(lanes: &EncodedLanes, result: &RoundResult, sum: &RoundSum, plan: &RunPlan) -> bool {
    let bits = plan.aggregation.bits;
    let (total, mask) = (sum.total(bits), bits.mask());
    let mut expected = vec![0_u32; total.0.len()];
    let complete = lanes.with(|encoded| {
        result.survivors.iter().all(|member| {
            let Some(lanes) = encoded.get(&(result.round, result.attempt, *member)) else {
                return false;
            };
            for (total, lane) in expected.iter_mut().zip(lanes) {
                *total = total.wrapping_add(*lane) & mask;
            }
            true
        })
    });
    complete && expected == total.0
}

fn figures(sight: Sight, names: &[MemberName]) -> Option<RoundFigures> {
    let (result, sum_exact, total) = sight.done?;
    let named = |members: &[MemberIndex]| {
        members
            .iter()
            .map(|member| names[usize::from(member.0)].to_string())
            .collect()
    };
    let mut seconds = BTreeMap::new();
    for (stage, took) in sight.reports.iter().flat_map(|report| &report.seconds) {
        let longest: &mut f64 = seconds.entry(stage.name().to_owned()).or_default();
        *longest = longest.max(took.as_secs_f64());
    }
    seconds.insert("total".into(), total);
    Some(RoundFigures {
        round: result.round.0,
        attempts: sight.attempts,
        survivors: named(&result.survivors),
        dropped: named(&result.dropped),
        train_loss: result.train_loss,
        eval_loss: result.eval_loss,
        votes: result.votes,
        taken_back: sight.taken_back,
        total_weight: result.total_weight,
        bytes_up: sight.reports.iter().map(|one| one.traffic.sent).sum(),
        bytes_down: sight.reports.iter().map(|one| one.traffic.received).sum(),
        sum_exact,
        drift: sight.drift,
        seconds,
    })
}
