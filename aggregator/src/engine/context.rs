//! What every phase of a run needs: its settings, the members' connections, the inbox, and who
//! watches. Handed from phase to phase.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Adapter;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::plan::{PlanError, Roster, RunPlan, ServerSettings, SignedPlan};
use fedlora_protocol::receipt::RunReceipt;
use fedlora_protocol::secagg::CohortPolicy;
use fedlora_protocol::wire::messages::ToMember;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::failure::RunFailure;
use super::links::Links;
use super::messages::{RunEvent, SessionId, ToEngine};
use super::overview::{Due, Overview};
use super::patience::Offenders;
use super::progress::Progress;
use crate::audit::{self, KeptPlan, RecordFolder};
use crate::blocking;
use crate::clock::Clock;
use crate::directory::Opened;
use crate::publish;
use crate::registry::Registry;
use crate::run_directory::RunDirectory;

/// How long a member may take to come back beyond the plan's own patience: the longest pause between
/// a member's tries.
pub(super) const RETURN: Duration = Duration::from_secs(10);

/// How often deadlines are looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How often to look whether something is due to be told.
const TELL_TICK: Duration = Duration::from_secs(1);

/// What waiting for a message came to.
#[derive(Debug)]
pub(super) enum Arrival {
    Message(ToEngine),
    /// None came for a while.
    Nothing,
    /// The endpoint is closed.
    Closed,
}

/// What an engine is made from.
#[derive(Debug)]
pub struct EngineSetup {
    /// The run's random identifier.
    pub run: RunId,
    /// The plan that the run carries out.
    pub plan: RunPlan,
    /// The published adapter that the plan begins from. A run that is taken up has it in its record.
    pub start: Option<Arc<Adapter>>,
    /// The federation's name, for the status.
    pub federation: String,
    /// The operator's keys; one of them signs plan and results.
    pub operator: Arc<Opened>,
    /// The members that have joined.
    pub registry: Registry,
    /// The run's folder: adapters, results and uploads.
    pub directory: RunDirectory,
    /// Where everything is recorded by which a run is taken up after a crash, or a round replayed.
    pub record: RecordFolder,
    /// The file that holds the status.
    pub status: PathBuf,
    /// Gets what happens; may be closed.
    pub events: mpsc::UnboundedSender<RunEvent>,
    /// Tells the time for deadlines and for the status.
    pub clock: Arc<dyn Clock>,
}

/// What all phases share.
#[derive(Debug)]
pub(super) struct RunContext {
    pub(super) setup: EngineSetup,
    signed_plan: SignedPlan,
    pub(super) plan_digest: Digest,
    pub(super) policy: CohortPolicy,
    pub(super) server: ServerSettings,
    pub(super) links: Links,
    /// The members that no phase waits for.
    pub(super) offenders: Offenders,
    pub(super) inbox: mpsc::Receiver<ToEngine>,
    /// What is told of the run beside its progress.
    pub(super) overview: Overview,
    /// A moment of the rounds' time, and of the steady one. The rounds' time passes as that does: a
    /// clock that is set neither ends a phase nor prolongs it. A time in which no aggregator was there
    /// does not count.
    since: (Timestamp, Duration),
    /// The clock when the run began in this process, and the steady time then.
    begun: (Timestamp, Duration),
}

impl RunContext {
    /// Signs the plan and derives from it what the rounds need.
    ///
    /// # Errors
    /// A plan that cannot be protected or encoded.
    pub(super) fn new(
        setup: EngineSetup,
        inbox: mpsc::Receiver<ToEngine>,
    ) -> Result<Self, PlanError> {
        let begun = (setup.clock.now(), setup.clock.steady());
        Ok(Self {
            signed_plan: SignedPlan::sign(setup.run, setup.plan.clone(), &setup.operator.identity),
            plan_digest: setup.plan.digest(),
            policy: setup.plan.policy()?,
            server: setup.plan.server_settings()?,
            links: Links::default(),
            offenders: Offenders::default(),
            inbox,
            overview: Overview::default(),
            since: begun,
            begun,
            setup,
        })
    }

    /// The rounds' time goes on from `last`, when the aggregator was last there; and members get a
    /// while to come back first.
    pub(super) fn go_on_from(&mut self, last: Timestamp, roster: &Roster) {
        let last = Timestamp(last.0.saturating_sub(RETURN.as_millis() as u64));
        self.since = (last, self.setup.clock.steady());
        self.overview.forget_fetches();
        let back = self.now().after(RETURN);
        for entry in roster.entries() {
            self.links.await_return(&entry.name, back);
        }
    }

    /// All that have joined the federation, in order. A record that cannot be read is no reason to
    /// wait for nobody: it is told of where it matters.
    pub(super) fn recorded(&self) -> Vec<MemberName> {
        let members = blocking::in_place(|| self.setup.registry.members());
        members
            .map(|members| members.into_iter().map(|record| record.name).collect())
            .unwrap_or_default()
    }

    /// Keeps what the run is about: its roster, the plan and the first adapter.
    ///
    /// # Errors
    /// What cannot be written.
    pub(super) fn keep_run(&self, roster: &Roster, first: &Adapter) -> Result<(), RunFailure> {
        let EngineSetup {
            directory, plan, ..
        } = &self.setup;
        blocking::in_place(|| {
            publish::store_roster(directory, roster)?;
            let receipt = RunReceipt {
                aggregator: self.setup.operator.identity.public(),
                plan: self.signed_plan.clone(),
                roster: roster.clone(),
                first: first.digest(),
            };
            publish::store_receipt(directory, &receipt)?;
            let kept = KeptPlan {
                aggregator: self.setup.operator.identity.public(),
                plan: self.signed_plan.clone(),
            };
            if plan.start_from.is_some() {
                // A member that comes back after the run's end needs it: it follows from nothing.
                publish::store_first(directory, first, &plan.base.name)?;
            }
            audit::keep_run(&self.setup.record, &kept, first, &plan.base.name)?;
            Ok(())
        })
    }

    /// The adapter that the run begins from, where that is a published one with this digest.
    pub(super) fn start(&self, digest: &Digest) -> Option<Arc<Adapter>> {
        let named = self.setup.plan.start_from == Some(*digest);
        self.setup.start.clone().filter(|_| named)
    }

    /// The rounds' time.
    pub(super) fn now(&self) -> Timestamp {
        self.moved_on(self.since)
    }

    /// The time by which it is told how the run stands: that of the clock when the run began, moved on.
    fn telling(&self) -> Timestamp {
        self.moved_on(self.begun)
    }

    fn moved_on(&self, (moment, steady): (Timestamp, Duration)) -> Timestamp {
        moment.after(self.setup.clock.steady().saturating_sub(steady))
    }

    /// Waits for the next message, at most as long as `left`; then time may be up, or something is due
    /// to be told.
    pub(super) async fn arrival(&mut self, left: Duration) -> Arrival {
        match tokio::time::timeout(left.min(TELL_TICK), self.inbox.recv()).await {
            Ok(Some(message)) => {
                self.note(&message);
                Arrival::Message(message)
            }
            Ok(None) => Arrival::Closed,
            Err(_) => Arrival::Nothing,
        }
    }

    /// Takes note of a message that came in.
    pub(super) fn note(&mut self, message: &ToEngine) {
        let (clock, rounds) = (self.setup.clock.now(), self.now());
        self.overview.note(message, clock, rounds);
    }

    /// Takes up a member's connection and sends it the plan.
    pub(super) fn connect(
        &mut self,
        member: MemberName,
        session: SessionId,
        outbox: mpsc::UnboundedSender<ToMember>,
    ) {
        self.links.connect(member.clone(), session, outbox);
        self.links
            .send(&member, ToMember::Plan(self.signed_plan.clone()));
    }

    /// Notes that a member's connection ended, and why it does not take part, where it has said so.
    pub(super) fn leaves(
        &mut self,
        member: &MemberName,
        session: SessionId,
        said: Option<&String>,
    ) {
        self.disconnect(member, session);
        if let Some(reason) = said {
            warn!(%member, %reason, "the member does not take part");
        }
    }

    /// Notes that a member's connection broke.
    pub(super) fn disconnect(&mut self, member: &MemberName, session: SessionId) {
        let now = self.now();
        self.links.disconnect(member, session, now);
    }

    /// Tells whoever watches.
    pub(super) fn watch(&self, event: RunEvent) {
        // Nobody need watch.
        let _ = self.setup.events.send(event);
    }

    /// When bytes of an adapter last reached a member, in the rounds' time.
    pub(super) fn fetched(&self, member: &MemberName) -> Option<Timestamp> {
        self.overview.fetched(member)
    }

    /// What is due to be told.
    pub(super) fn due(&self) -> Due {
        self.overview.due(self.telling())
    }

    /// Tells what is due: writes the status, and says it in the log.
    pub(super) fn tell(&mut self, due: Due, progress: Progress<'_>) {
        match due {
            Due::Nothing => {}
            Due::Status => self.write_status(progress),
            Due::Line => self.announce(progress),
        }
    }

    /// Writes the status file.
    pub(super) fn write_status(&mut self, progress: Progress<'_>) {
        self.write(progress, Due::Status);
    }

    /// Writes the status file, and says in the log what is waited for.
    pub(super) fn announce(&mut self, progress: Progress<'_>) {
        self.write(progress, Due::Line);
    }

    fn write(&mut self, progress: Progress<'_>, due: Due) {
        let now = self.setup.clock.now();
        let ahead = self.now().until(now);
        self.overview.wait_for(progress.stage(ahead), now);
        let status = progress.status(
            self.setup.run,
            &self.setup.federation,
            self.setup.plan.rounds,
            (&self.links, &self.overview),
            now,
        );
        self.overview.told(due, self.telling());
        if due == Due::Line {
            info!("{}", status.summary(now));
        }
        // The run matters more than its status.
        if let Err(error) = status.write(&self.setup.status) {
            warn!(%error, "the status cannot be written");
        }
    }
}
