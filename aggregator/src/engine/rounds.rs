//! The engine itself: gathers the cohort, then runs the plan's rounds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Adapter;
use fedlora_common::bytes::f32_to_le;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{AUXILIARY_LANES, FixedPoint};
use fedlora_protocol::ids::{Attempt, MemberName, RoundNumber, RunId};
use fedlora_protocol::plan::{PlanError, Roster, RosterEntry, RunPlan, SignedPlan};
use fedlora_protocol::round::coordinator::{Coordinator, RoundSetup};
use fedlora_protocol::secagg::{CohortPolicy, RunningSum};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{
    Open, PhaseName, RoundFailure, RoundResult, SUITE, ToAggregator, ToMember,
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::cohort::{Cohort, Gathering};
use super::links::Links;
use super::round::{RoundAtHand, RoundEnd};
use super::{RunEvent, ToEngine};
use crate::directory::{Opened, RunDirectory};
use crate::publish;
use crate::registry::{Registry, RegistryError};
use crate::status::{MemberStatus, RunState, Status};
use fedlora_shell::now;

/// Tries at one round before the run is given up.
const MAX_ATTEMPTS: u32 = 3;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long members may take to fetch the last adapter.
const FAREWELL: Duration = Duration::from_secs(60);
/// How long beyond the plan's own patience a member that is away at the end may take to come
/// back: the longest pause between a member's tries.
const RETURN: Duration = Duration::from_secs(10);

/// What an engine is made from.
#[derive(Debug)]
pub struct EngineSetup {
    /// The run.
    pub run: RunId,
    /// Its plan.
    pub plan: RunPlan,
    /// The federation's name, for the status.
    pub federation: String,
    /// The operator's keys; one of them signs plan and results.
    pub operator: Arc<Opened>,
    /// Who has joined.
    pub registry: Registry,
    /// Where adapters and uploads go.
    pub directory: RunDirectory,
    /// Where the status goes.
    pub status: PathBuf,
    /// Who watches.
    pub events: mpsc::UnboundedSender<RunEvent>,
}

/// The run's owner.
#[derive(Debug)]
pub struct Engine {
    pub(super) setup: EngineSetup,
    pub(super) signed_plan: SignedPlan,
    pub(super) plan_digest: Digest,
    pub(super) policy: CohortPolicy,
    pub(super) format: FixedPoint,
    pub(super) links: Links,
    pub(super) inbox: mpsc::Receiver<ToEngine>,
    pub(super) gathering: Gathering,
    pub(super) running: Option<Running>,
    pub(super) rounds_by_member: BTreeMap<MemberName, u32>,
    pub(super) rounds_done: u32,
    /// How the run ended, once it has.
    ended: Option<(RunState, Option<String>)>,
}

/// What exists once the cohort is complete.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) roster: Arc<Roster>,
    pub(super) adapter: Adapter,
    pub(super) adapter_bytes: Arc<Vec<u8>>,
    /// The digest of the newest result, which the next is chained to.
    pub(super) chain: Digest,
    pub(super) results: Vec<Unverified<RoundResult>>,
    pub(super) round: Option<RoundAtHand>,
}

impl Engine {
    /// An engine that is ready to run.
    ///
    /// # Errors
    /// A plan that cannot be protected or encoded.
    pub fn new(setup: EngineSetup, inbox: mpsc::Receiver<ToEngine>) -> Result<Self, PlanError> {
        Ok(Self {
            signed_plan: SignedPlan::sign(setup.run, setup.plan.clone(), &setup.operator.identity),
            plan_digest: setup.plan.digest(),
            policy: setup.plan.policy()?,
            format: setup.plan.fixed_point()?,
            links: Links::default(),
            inbox,
            gathering: Gathering::default(),
            running: None,
            rounds_by_member: BTreeMap::new(),
            rounds_done: 0,
            ended: None,
            setup,
        })
    }

    /// Gathers the cohort, runs the rounds, and lets the members go.
    ///
    /// # Errors
    /// [`RunFailure`] where the run ends before its plan does. The members are told.
    pub async fn run(mut self) -> Result<RunId, RunFailure> {
        self.write_status(RunState::Gathering, None);
        let outcome = self.run_rounds().await;
        let failure = outcome.as_ref().err().map(ToString::to_string);
        let state = match failure {
            None => RunState::Finished,
            Some(_) => RunState::Failed,
        };
        self.ended = Some((state, failure.clone()));
        self.write_status_now();
        self.links.broadcast(&ToMember::Finished { failure });
        self.farewell().await;
        outcome.map(|()| self.setup.run)
    }

    async fn run_rounds(&mut self) -> Result<(), RunFailure> {
        self.gather().await?;
        let mut round = RoundNumber(1);
        let mut attempt = Attempt(1);
        let last = RoundNumber(self.setup.plan.rounds);
        while round <= last {
            match self.run_round(round, attempt).await? {
                RoundEnd::Done => {
                    round = RoundNumber(round.0 + 1);
                    attempt = Attempt(1);
                }
                RoundEnd::Failed(reason) => {
                    let shares_were_revealed = matches!(
                        reason,
                        RoundFailure::Recovery
                            | RoundFailure::Sum
                            | RoundFailure::Quorum {
                                phase: PhaseName::Reveal,
                                ..
                            }
                    );
                    if shares_were_revealed || attempt.0 == MAX_ATTEMPTS {
                        // After a reveal the same round may not be asked for again.
                        return Err(RunFailure::Round { round, reason });
                    }
                    attempt = Attempt(attempt.0 + 1);
                }
            }
        }
        Ok(())
    }

    /// Waits until the cohort is complete.
    async fn gather(&mut self) -> Result<(), RunFailure> {
        let deadline = now().after(Duration::from_secs(self.setup.plan.timeouts.join));
        loop {
            let message = tokio::time::timeout(now().until(deadline), self.inbox.recv()).await;
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Err(RunFailure::Stopped),
                Err(_) => {
                    return Err(RunFailure::Members {
                        reason: self.gathering.shortfall(&self.setup.plan),
                    });
                }
            };
            if let Some((member, message)) = self.common(message) {
                let ToAggregator::Ready(ready) = message else {
                    debug!(%member, "a message before the run began");
                    continue;
                };
                match self
                    .gathering
                    .ready(&self.setup.plan, member.clone(), ready)
                {
                    Ok(complete) => {
                        self.watch(RunEvent::MemberReady {
                            member,
                            ready: self.gathering.count(),
                            needed: self.setup.plan.members,
                        });
                        self.write_status(RunState::Gathering, None);
                        if let Some(cohort) = complete {
                            return self.begin(cohort);
                        }
                    }
                    Err(reason) => {
                        warn!(%member, %reason, "a member cannot take part");
                        self.links.send(&member, ToMember::Refused { reason });
                    }
                }
            }
        }
    }

    fn begin(&mut self, cohort: Cohort) -> Result<(), RunFailure> {
        let mut entries = Vec::new();
        for name in &cohort.members {
            let record = self
                .setup
                .registry
                .member(name)?
                .ok_or_else(|| RunFailure::Members {
                    reason: format!("{name} is connected but not recorded as a member"),
                })?;
            entries.push(RosterEntry {
                name: record.name,
                identity: record.identity,
                certificate_key: record.certificate_key,
            });
        }
        let roster = Roster::new(entries).map_err(|error| RunFailure::Members {
            reason: error.to_string(),
        })?;
        info!(members = roster.len(), roster = %roster.digest(), "the cohort is complete");
        let late: Vec<_> = self
            .gathering
            .members()
            .filter(|name| roster.index_of(name).is_none())
            .cloned()
            .collect();
        for name in late {
            self.links.send(&name, Self::not_on_the_roster());
        }
        for entry in roster.entries() {
            self.links
                .send(&entry.name, ToMember::Roster(roster.clone()));
        }
        let digest = cohort.adapter.digest();
        self.running = Some(Running {
            chain: RoundResult::chain_start(
                self.setup.run,
                &self.plan_digest,
                &roster.digest(),
                &digest,
            ),
            roster: Arc::new(roster),
            adapter_bytes: Arc::new(f32_to_le(cohort.adapter.values())),
            adapter: cohort.adapter,
            results: Vec::new(),
            round: None,
        });
        Ok(())
    }

    /// Runs one attempt at a round to its end.
    async fn run_round(
        &mut self,
        round: RoundNumber,
        attempt: Attempt,
    ) -> Result<RoundEnd, RunFailure> {
        let running = self.running.as_mut().expect("the cohort is complete");
        let factors = self.setup.plan.adapter.factors.factors_in(round);
        let part = running
            .adapter
            .layout()
            .subset(factors)
            .expect("the adapter's layout holds both factors");
        let aggregation = &self.setup.plan.aggregation;
        let open = Open {
            suite: SUITE,
            run: self.setup.run,
            round,
            attempt,
            roster: running.roster.digest(),
            adapter: running.adapter.digest(),
            plan: self.plan_digest,
            layout: part.digest(),
            factors,
            clip: aggregation.clip,
            max_weight: aggregation.max_weight,
            bits: aggregation.bits,
            threshold: self.policy.threshold() as u16,
            minimum: self.policy.minimum() as u16,
        };
        let setup = Arc::new(RoundSetup::new(
            open,
            Arc::clone(&running.roster),
            self.policy,
            self.setup.plan.timeouts.clone(),
        ));
        info!(run = %self.setup.run, %round, %attempt, "the round opens");
        let (coordinator, effects) = Coordinator::open(setup, now());
        let lanes = part.len() + AUXILIARY_LANES;
        running.round = Some(RoundAtHand {
            coordinator,
            sum: RunningSum::new(aggregation.bits, lanes),
            part,
            opened: now(),
        });
        self.watch(RunEvent::RoundOpened { round, attempt });
        self.write_status(RunState::Running, None);

        let mut end = self.carry_out(effects).await?;
        let mut tick = tokio::time::interval(TICK);
        while end.is_none() {
            end = tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.handle(message).await?,
                    None => return Err(RunFailure::Stopped),
                },
                _ = tick.tick() => self.pass_time().await?,
            };
        }
        self.clear_uploads();
        let end = end.expect("the loop ends with an end");
        if let RoundEnd::Failed(reason) = &end {
            warn!(%round, %attempt, %reason, "the round failed");
            self.watch(RunEvent::RoundFailed {
                round,
                attempt,
                reason: *reason,
            });
            let message = ToMember::Abandoned {
                round,
                attempt,
                reason: *reason,
            };
            self.links.broadcast(&message);
        }
        Ok(end)
    }

    /// A message that concerns the connection rather than the round is dealt with here;
    /// what a member said is given back.
    pub(super) fn common(&mut self, message: ToEngine) -> Option<(MemberName, ToAggregator)> {
        match message {
            ToEngine::Connected {
                member,
                session,
                outbox,
            } => {
                self.links.connect(member.clone(), session, outbox);
                self.links
                    .send(&member, ToMember::Plan(self.signed_plan.clone()));
                None
            }
            ToEngine::Disconnected { member, session } => {
                self.links.disconnect(&member, session, now());
                if self.running.is_none() {
                    self.gathering.forget(&member);
                }
                self.write_status_now();
                None
            }
            ToEngine::FetchAdapter { adapter, reply } => {
                let held = self
                    .running
                    .as_ref()
                    .filter(|running| running.adapter.digest() == adapter)
                    .map(|running| Arc::clone(&running.adapter_bytes));
                let _ = reply.send(held);
                None
            }
            ToEngine::UploadBegins { reply, .. } => {
                let _ = reply.send(Err("no round is at hand".into()));
                None
            }
            ToEngine::Uploaded { reply, .. } => {
                let _ = reply.send(Err("no round is at hand".into()));
                None
            }
            ToEngine::Message { member, message } => match *message {
                // The member is all set: it closes its connection next, or waits for a round.
                ToAggregator::Fetched { adapter } => {
                    debug!(%member, %adapter, "the member holds the adapter");
                    None
                }
                message => Some((member, message)),
            },
        }
    }

    /// Waits until the members that are connected hold the last adapter, or have gone.
    async fn farewell(&mut self) {
        let deadline = now().after(FAREWELL);
        let mut away = self.lately_away();
        while self.links.count() > 0 || !away.is_empty() {
            away.retain(|_, until| now() < *until);
            if now() >= deadline {
                return;
            }
            match tokio::time::timeout(TICK, self.inbox.recv()).await {
                Ok(Some(message)) => {
                    if let ToEngine::Connected { member, .. } = &message {
                        let member = member.clone();
                        away.remove(&member);
                        self.common(message);
                        // It was away when the run ended: it follows the chain and leaves.
                        if let Some(running) = &self.running {
                            let roster = running.roster.as_ref().clone();
                            self.links.send(&member, ToMember::Roster(roster));
                        }
                        self.send_results(&member);
                        let failure = self.ended.clone().and_then(|(_, failure)| failure);
                        self.links.send(&member, ToMember::Finished { failure });
                    } else {
                        self.common(message);
                    }
                }
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    /// The members whose connection broke so lately that they may still come back for the last
    /// adapter, with how long each is waited for.
    fn lately_away(&self) -> BTreeMap<MemberName, Timestamp> {
        let patience = Duration::from_secs(self.setup.plan.timeouts.reconnect) + RETURN;
        let roster = self.running.iter().flat_map(|run| run.roster.entries());
        roster
            .filter_map(|entry| {
                let since = self.links.broken_since(&entry.name)?;
                Some((entry.name.clone(), since.after(patience)))
            })
            .collect()
    }

    /// Sends all results so far: the member follows the chain from where it left off.
    pub(super) fn send_results(&self, member: &MemberName) {
        let results = self.running.iter().flat_map(|running| &running.results);
        for result in results {
            self.links.send(member, ToMember::Result(result.clone()));
        }
    }

    pub(super) fn not_on_the_roster() -> ToMember {
        ToMember::Refused {
            reason: "the run began with other members: its roster is closed".into(),
        }
    }

    pub(super) fn watch(&self, event: RunEvent) {
        // Nobody need watch.
        let _ = self.setup.events.send(event);
    }

    fn write_status_now(&self) {
        let (state, failure) = match &self.ended {
            // Members that leave after the end do not bring the run back.
            Some(ended) => ended.clone(),
            None if self.running.is_some() => (RunState::Running, None),
            None => (RunState::Gathering, None),
        };
        self.write_status(state, failure);
    }

    pub(super) fn write_status(&self, state: RunState, failure: Option<String>) {
        let names: Vec<MemberName> = match &self.running {
            Some(running) => running
                .roster
                .entries()
                .iter()
                .map(|entry| entry.name.clone())
                .collect(),
            None => self.gathering.members().cloned().collect(),
        };
        let status = Status {
            schema_version: 1,
            federation: self.setup.federation.clone(),
            run: self.setup.run.to_string(),
            state,
            failure,
            rounds_planned: self.setup.plan.rounds,
            rounds_done: self.rounds_done,
            phase: self
                .running
                .as_ref()
                .and_then(|running| running.round.as_ref()?.coordinator.phase())
                .map(|phase| phase.to_string()),
            members: names
                .into_iter()
                .map(|name| MemberStatus {
                    connected: self.links.is_connected(&name),
                    rounds: self.rounds_by_member.get(&name).copied().unwrap_or(0),
                    name,
                })
                .collect(),
            adapter: self
                .running
                .as_ref()
                .map(|running| running.adapter.digest().to_string()),
            updated: now(),
            pid: std::process::id(),
        };
        // The run matters more than its status.
        if let Err(error) = status.write(&self.setup.status) {
            warn!(%error, "the status cannot be written");
        }
    }
}

/// Why a run ended before its plan did.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// The cohort never was complete.
    #[error("{reason}")]
    Members {
        /// What was missing.
        reason: String,
    },
    /// A round could not be brought to an end.
    #[error("round {round} failed: {reason}")]
    Round {
        /// Which.
        round: RoundNumber,
        /// Why.
        reason: RoundFailure,
    },
    /// The outcome could not be stored.
    #[error(transparent)]
    Publish(#[from] publish::PublishError),
    /// A member's record could not be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The endpoint was closed.
    #[error("the aggregator was stopped")]
    Stopped,
}
