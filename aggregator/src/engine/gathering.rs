//! The first phase: waiting for as many members as the plan asks for.

use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::Roster;
use fedlora_protocol::wire::messages::{Ready, ToAggregator};
use tracing::{debug, info, warn};

use super::chain::AdapterChain;
use super::cohort::{Cohort, ReadyMembers};
use super::consent::Consent;
use super::context::{Arrival, RunContext};
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use super::messages::{RunEvent, ToEngine};
use super::overview::Due;
use super::refusal::{MemberRefusal, UploadRefusal};

/// A run without a cohort.
#[derive(Debug)]
pub(super) struct Gathering {
    context: RunContext,
    ready: ReadyMembers,
    deadline: Timestamp,
}

impl Gathering {
    /// Begins to wait for members.
    pub(super) fn begin(context: RunContext) -> Self {
        let join = Duration::from_secs(context.setup.plan.timeouts.join);
        let mut gathering = Self {
            deadline: context.now().after(join),
            context,
            ready: ReadyMembers::default(),
        };
        gathering.tell(Due::Line);
        gathering
    }

    /// Waits until the cohort is complete.
    pub(super) async fn complete(mut self) -> Result<Consent, Box<Farewell>> {
        match self
            .wait_for_cohort()
            .await
            .and_then(|cohort| self.enrol(cohort))
        {
            Ok(chain) => Ok(Consent::begin(self.context, chain)),
            Err(failure) => Err(Box::new(Farewell::failed(
                self.context,
                Reached::Gathering(self.ready),
                failure,
            ))),
        }
    }

    async fn wait_for_cohort(&mut self) -> Result<Cohort, RunFailure> {
        loop {
            let left = self.context.now().until(self.deadline);
            match self.context.arrival(left).await {
                Arrival::Message(message) => {
                    if let Some(cohort) = self.handle(message)
                        && self.are_recorded(&cohort)?
                    {
                        return Ok(cohort);
                    }
                }
                Arrival::Closed => return Err(RunFailure::Stopped),
                Arrival::Nothing if left.is_zero() => {
                    let shortfall = self.ready.shortfall(&self.context.setup.plan);
                    return Err(RunFailure::Members(shortfall));
                }
                Arrival::Nothing => {}
            }
            self.tell(self.context.due());
        }
    }

    /// Tells what is due of who is ready and who is not.
    fn tell(&mut self, due: Due) {
        if due == Due::Nothing {
            return;
        }
        let recorded = self.context.recorded();
        let plan = &self.context.setup.plan;
        let waiting = self.ready.waiting(plan, &recorded, self.deadline);
        let progress = self.ready.progress(&recorded, Some(waiting));
        self.context.tell(due, progress);
    }

    /// Whether all of a cohort are members still. Those that were removed meanwhile are not ready any
    /// more.
    fn are_recorded(&mut self, cohort: &Cohort) -> Result<bool, RunFailure> {
        let mut all = true;
        for name in &cohort.members {
            if self.context.setup.registry.member(name)?.is_none() {
                warn!(member = %name, "the member was removed");
                self.ready.forget(name);
                all = false;
            }
        }
        Ok(all)
    }

    fn handle(&mut self, message: ToEngine) -> Option<Cohort> {
        match message {
            ToEngine::Connected {
                member,
                session,
                outbox,
                ..
            } => {
                self.context.connect(member, session, outbox);
                self.context.overview.changed(Due::Status);
            }
            ToEngine::Disconnected {
                member,
                session,
                said,
            } => {
                self.context.leaves(&member, session, said.as_ref());
                // The end of a connection that was replaced changes nothing.
                let away = !self.context.links.is_connected(&member);
                let was_ready = away && self.ready.forget(&member);
                let changes = was_ready || said.is_some();
                let due = if changes { Due::Line } else { Due::Status };
                self.context.overview.changed(due);
            }
            ToEngine::Message { member, message } => match *message {
                ToAggregator::Ready(ready) => return self.ready(member, ready),
                ToAggregator::Round { .. }
                | ToAggregator::Fetched { .. }
                | ToAggregator::Accepted { .. } => {
                    debug!(%member, "a message before the run began");
                }
            },
            ToEngine::UploadBegins { reply, .. } => {
                let _ = reply.send(Err(UploadRefusal::NoRound));
            }
            ToEngine::Uploaded { reply, .. } => {
                let _ = reply.send(Err(UploadRefusal::NoRound));
            }
            ToEngine::FetchAdapter { adapter, reply } => {
                let _ = reply.send(self.context.start(&adapter));
            }
            ToEngine::Moved { .. } | ToEngine::OwnCertificate { .. } => {}
        }
        None
    }

    fn ready(&mut self, member: MemberName, ready: Ready) -> Option<Cohort> {
        let plan = &self.context.setup.plan;
        let start = self.context.setup.start.as_deref();
        match self.ready.add((plan, start), member.clone(), ready) {
            Ok(complete) => {
                self.context.watch(RunEvent::MemberReady {
                    member,
                    ready: self.ready.count(),
                    needed: plan.members,
                });
                self.context.overview.changed(Due::Line);
                complete
            }
            Err(refusal) => {
                warn!(%member, reason = %refusal, "a member cannot take part");
                self.context.links.send(&member, refusal.message());
                let overview = &mut self.context.overview;
                overview.hinders(&member, refusal.to_string());
                overview.changed(Due::Line);
                None
            }
        }
    }

    /// Closes the roster, and tells the members that came too late.
    fn enrol(&self, cohort: Cohort) -> Result<AdapterChain, RunFailure> {
        let mut entries = Vec::new();
        for name in cohort.members {
            let record = self
                .context
                .setup
                .registry
                .member(&name)?
                .ok_or(RunFailure::NotRecorded { name })?;
            entries.push(record.roster_entry());
        }
        let roster = Roster::new(entries)?;
        info!(members = roster.len(), roster = %roster.digest(), "the cohort is complete");
        let links = &self.context.links;
        for name in self.ready.names() {
            if roster.index_of(name).is_none() {
                links.send(name, MemberRefusal::RosterClosed.message());
            }
        }
        self.context.keep_run(&roster, &cohort.adapter)?;
        Ok(AdapterChain::begin(&self.context, roster, cohort.adapter))
    }
}
