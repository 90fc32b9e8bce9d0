//! Waiting for a run that the member's rules or its user accept.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::{PlanError, RunPlan};
use fedlora_protocol::wire::messages::ToMember;
use fedlora_protocol::wire::session::Purpose;
use rand::RngExt;
use tokio::time::Instant;

use super::files::{AgentFiles, AgentPhase, AgentState, PendingPlan};
use super::rules::{Judgement, Refusal};
use crate::directory::MemberDirectory;
use crate::federation::{Connector, LinkError, MemberLink, is_hopeless, is_of_a_clock};
use crate::receipts;

/// How often rules, answers and times are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The pause before the aggregator is tried again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a connection stands. The next one's hello renews a certificate in its second half: without a
/// run, nothing else would.
const MAX_AGE: Duration = Duration::from_secs(86_400);
/// The pause before a run is tried again that broke off: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(900));

/// A run to take part in.
#[derive(Debug, Clone)]
pub struct AcceptedRun {
    /// The run.
    pub run: RunId,
    /// The digest of the plan that was accepted: another one is not.
    pub digest: Digest,
    /// How long it may take.
    pub longest: Option<Duration>,
}

/// Something for the user to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentNote {
    /// The aggregator cannot be reached.
    Unreachable {
        /// What the last try came to.
        reason: String,
    },
    /// It can be reached again, or for the first time.
    Waiting {
        /// Its address.
        address: String,
    },
    /// The rules cannot be read.
    Rules {
        /// The file, and what is wrong with it.
        error: String,
    },
    /// A plan waits for an answer.
    Asking {
        /// The run.
        run: RunId,
    },
    /// The user does not take part.
    Declined {
        /// The run.
        run: RunId,
    },
    /// The rules refuse a run.
    Refused {
        /// The run.
        run: RunId,
        /// The rule, with what the plan has.
        refusal: Refusal,
    },
    /// A run waits for the hours in which runs begin.
    Later {
        /// The run.
        run: RunId,
        /// The hours, in UTC.
        hours: String,
    },
}

/// Waits for runs, one after the other.
#[derive(Debug)]
pub struct Agent<C> {
    connector: C,
    aggregator: IdentityPublic,
    directory: MemberDirectory,
    files: AgentFiles,
    /// Runs that broke off, with the pause before each is tried again.
    retries: BTreeMap<RunId, (Instant, Duration)>,
    state: Option<(AgentPhase, Option<RunId>)>,
    told: Option<AgentNote>,
    /// The part of a pause that is waited for.
    jitter: fn() -> f64,
}

impl<C: Connector> Agent<C> {
    /// The agent of the member in `directory`, whose plans `aggregator` signs.
    pub fn new(connector: C, aggregator: IdentityPublic, directory: MemberDirectory) -> Self {
        Self {
            connector,
            aggregator,
            files: directory.agent(),
            directory,
            retries: BTreeMap::new(),
            state: None,
            told: None,
            // Members that an aggregator has left do not all come back at the same moment.
            jitter: || os_rng().random_range(0.5..1.0),
        }
    }

    /// The same agent, which waits for the part `jitter` gives of each pause between two tries to reach
    /// the aggregator, above 0 and at most 1. By default a random half to whole.
    #[must_use]
    pub fn with_jitter(self, jitter: fn() -> f64) -> Self {
        Self { jitter, ..self }
    }

    /// Waits for a run to take part in. `note` gets what its user should read, each once.
    ///
    /// # Errors
    /// [`AgentError`] where waiting on cannot help.
    pub async fn next_run(
        &mut self,
        note: &mut (dyn FnMut(&AgentNote) + Send),
    ) -> Result<AcceptedRun, AgentError> {
        let (first, longest) = PAUSE;
        let mut pause = first;
        loop {
            let opened = fedlora_shell::now();
            let broken = match self.connector.open(Purpose::Watch).await {
                Ok(mut link) => {
                    pause = first;
                    let address = self.connector.address().to_owned();
                    self.tell(AgentNote::Waiting { address }, note);
                    match self.watch(&mut link, opened, note).await {
                        Ok(run) => {
                            link.finish().await;
                            return Ok(run);
                        }
                        Err(Ended::Old) => {
                            link.finish().await;
                            continue;
                        }
                        Err(Ended::Link(error)) => error,
                        Err(Ended::Agent(error)) => return Err(error),
                    }
                }
                Err(error) => error,
            };
            if is_hopeless(&broken) && !is_of_a_clock(&broken) {
                return Err(broken.into());
            }
            let reason = broken.to_string();
            self.set_state(AgentPhase::Unreachable, None, Some(reason.clone()));
            self.tell(AgentNote::Unreachable { reason }, note);
            tokio::time::sleep(pause.mul_f64((self.jitter)())).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// A run broke off: it is tried again, later each time.
    pub fn retry_later(&mut self, run: RunId, why: String) {
        let (first, longest) = RETRY;
        let pause = match self.retries.get(&run) {
            Some((_, pause)) => (*pause * 2).min(longest),
            None => first,
        };
        self.retries.insert(run, (Instant::now() + pause, pause));
        self.set_state(AgentPhase::Retrying, Some(run), Some(why));
    }

    /// Says what the agent does.
    pub fn set_state(&mut self, phase: AgentPhase, run: Option<RunId>, detail: Option<String>) {
        if self.state == Some((phase, run)) {
            return;
        }
        self.state = Some((phase, run));
        let state = AgentState {
            phase,
            run: run.map(|run| run.to_string()),
            detail,
            since: fedlora_shell::now(),
        };
        if let Err(error) = self.files.set_state(&state) {
            tracing::warn!(%error, "the agent's state cannot be written");
        }
    }

    /// Follows a connection whose hello was sent after `opened`: where the day changes while it is
    /// answered, the connection is old at once.
    async fn watch(
        &mut self,
        link: &mut C::Link,
        opened: Timestamp,
        note: &mut (dyn FnMut(&AgentNote) + Send),
    ) -> Result<AcceptedRun, Ended> {
        let mut shown = None;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if opened.until(fedlora_shell::now()) >= MAX_AGE {
                        return Err(Ended::Old);
                    }
                }
                message = link.receive() => match message.map_err(Ended::Link)? {
                    ToMember::Plan(signed) => {
                        let plan = signed.verify(&self.aggregator);
                        shown = Some(plan.map_err(|error| Ended::Agent(error.into()))?);
                    }
                    // Of a later release.
                    _ => continue,
                },
            }
            if let Some(accepted) = self.judge(shown.as_ref(), note) {
                return Ok(accepted);
            }
        }
    }

    /// What is to be done about the run that is shown, by rules and answers as they stand now.
    fn judge(
        &mut self,
        shown: Option<&(RunId, RunPlan)>,
        note: &mut (dyn FnMut(&AgentNote) + Send),
    ) -> Option<AcceptedRun> {
        if let Some(broken_off) = self.broken_off() {
            return Some(broken_off);
        }
        if self.files.is_paused() {
            self.set_state(AgentPhase::Paused, None, None);
            return None;
        }
        let waits = shown.filter(|(run, _)| !self.directory.is_over(*run));
        let Some(&(run, ref plan)) = waits else {
            if self.state != Some((AgentPhase::Waiting, None)) {
                self.set_state(AgentPhase::Waiting, None, None);
                // A plan whose run is over waits for no answer.
                let _ = self.files.withdraw();
            }
            return None;
        };
        let retry = self.retries.get(&run);
        if retry.is_some_and(|(at, _)| Instant::now() < *at) {
            return None;
        }
        match self.decide(run, plan) {
            Ok(accepted) => Some(accepted),
            Err((phase, what)) => {
                let detail = match &what {
                    AgentNote::Rules { error } => Some(error.clone()),
                    AgentNote::Refused { refusal, .. } => Some(refusal.to_string()),
                    AgentNote::Later { hours, .. } => Some(format!("runs begin at {hours} UTC")),
                    _ => None,
                };
                self.set_state(phase, Some(run), detail);
                self.tell(what, note);
                None
            }
        }
    }

    /// Whether to take part; otherwise what the agent does instead, and what its user should read.
    fn decide(&self, run: RunId, plan: &RunPlan) -> Result<AcceptedRun, (AgentPhase, AgentNote)> {
        let declining = |what| (AgentPhase::Declining, what);
        // Rules are being written, perhaps, or a disk is full: there is another look in a second.
        let rules = |error: String| declining(AgentNote::Rules { error });
        let config = self.directory.read_config();
        let config = config.map_err(|error| rules(error.to_string()))?;
        let digest = plan.digest();
        let accepted = AcceptedRun {
            run,
            digest,
            longest: config.agent.longest_run(),
        };
        match config.agent.judge(plan, fedlora_shell::now()) {
            Judgement::Accept => Ok(accepted),
            Judgement::Ask => match self.answer(run, plan, digest) {
                Ok(Some(true)) => Ok(accepted),
                Ok(Some(false)) => Err(declining(AgentNote::Declined { run })),
                Ok(None) => Err((AgentPhase::Asking, AgentNote::Asking { run })),
                Err(error) => Err(rules(format!("the agent's files: {error}"))),
            },
            Judgement::Later { hours } => Err(declining(AgentNote::Later {
                run,
                hours: hours.to_string(),
            })),
            Judgement::Refuse(refusal) => Err(declining(AgentNote::Refused { run, refusal })),
        }
    }

    /// A run that this member was in, that broke off, and whose pause is over: it is gone back to, also
    /// where it has ended meanwhile, at any hour, and whatever the rules say by now.
    fn broken_off(&self) -> Option<AcceptedRun> {
        let due = |(run, (at, _)): (&RunId, &(Instant, Duration))| {
            let is_due = Instant::now() >= *at && !self.directory.is_over(*run);
            is_due.then_some(*run)
        };
        let mut due = self.retries.iter().filter_map(due);
        due.find_map(|run| begun_run(&self.directory, run))
    }

    /// The user's answer to exactly this plan; asks where there is none yet.
    fn answer(&self, run: RunId, plan: &RunPlan, digest: Digest) -> io::Result<Option<bool>> {
        let name = run.to_string();
        let decision = self.files.decision()?;
        if let Some(decision) = decision.filter(|one| one.run == name && one.digest == digest) {
            return Ok(Some(decision.approved));
        }
        let pending = self.files.pending()?;
        if pending.is_none_or(|one| one.run != name || one.digest != digest) {
            self.files.show(&PendingPlan {
                run: name,
                digest,
                since: fedlora_shell::now(),
                plan: plan.clone(),
            })?;
        }
        Ok(None)
    }

    fn tell(&mut self, what: AgentNote, note: &mut (dyn FnMut(&AgentNote) + Send)) {
        if self.told.as_ref() != Some(&what) {
            note(&what);
            self.told = Some(what);
        }
    }
}

/// The run that this member was in when its agent stopped.
pub fn left_open(directory: &MemberDirectory) -> Option<AcceptedRun> {
    let newest = receipts::folders(&directory.runs()).ok()?.pop()?;
    let run: RunId = newest.file_name()?.to_str()?.parse().ok()?;
    match directory.is_over(run) {
        true => None,
        false => begun_run(directory, run),
    }
}

/// A run that this member has been in, by what it kept of it.
pub fn begun_run(directory: &MemberDirectory, run: RunId) -> Option<AcceptedRun> {
    let folder = directory.runs().join(run.to_string());
    let plan = receipts::verify(&folder).ok()?.verified.plan;
    let rules = directory.read_config().map(|config| config.agent);
    Some(AcceptedRun {
        run,
        digest: plan.digest(),
        longest: rules.unwrap_or_default().longest_run(),
    })
}

/// Why a connection is watched no more.
enum Ended {
    /// It has stood for [`MAX_AGE`].
    Old,
    Link(LinkError),
    Agent(AgentError),
}

/// Why an agent cannot wait on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// One side's certificate is refused by the other.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A plan that the aggregator did not sign, or an impossible one.
    #[error(transparent)]
    Plan(#[from] PlanError),
}
