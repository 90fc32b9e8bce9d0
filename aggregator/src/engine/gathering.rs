//! The first phase: waiting for as many members as the plan asks for.

use std::time::Duration;

use fedlora_protocol::ids::MemberName;
use fedlora_protocol::plan::Roster;
use fedlora_protocol::wire::messages::{Ready, ToAggregator};
use tracing::{debug, info, warn};

use super::chain::AdapterChain;
use super::cohort::{Cohort, ReadyMembers};
use super::consent::Consent;
use super::context::RunContext;
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use super::messages::{RunEvent, ToEngine};
use super::refusal::{MemberRefusal, UploadRefusal};

/// A run without a cohort.
#[derive(Debug)]
pub(super) struct Gathering {
    context: RunContext,
    ready: ReadyMembers,
}

impl Gathering {
    /// Begins to wait for members.
    pub(super) fn begin(context: RunContext) -> Self {
        let ready = ReadyMembers::default();
        context.write_status(ready.progress());
        Self { context, ready }
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
        let join = Duration::from_secs(self.context.setup.plan.timeouts.join);
        let deadline = self.context.now().after(join);
        loop {
            let left = self.context.now().until(deadline);
            match tokio::time::timeout(left, self.context.inbox.recv()).await {
                Ok(Some(message)) => {
                    if let Some(cohort) = self.handle(message)
                        && self.are_recorded(&cohort)?
                    {
                        return Ok(cohort);
                    }
                }
                Ok(None) => return Err(RunFailure::Stopped),
                Err(_) => {
                    let shortfall = self.ready.shortfall(&self.context.setup.plan);
                    return Err(RunFailure::Members(shortfall));
                }
            }
        }
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
            } => self.context.connect(member, session, outbox),
            ToEngine::Disconnected { member, session } => {
                self.context.disconnect(&member, session);
                self.ready.forget(&member);
                self.context.write_status(self.ready.progress());
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
            ToEngine::FetchAdapter { reply, .. } => {
                let _ = reply.send(None);
            }
        }
        None
    }

    fn ready(&mut self, member: MemberName, ready: Ready) -> Option<Cohort> {
        let plan = &self.context.setup.plan;
        match self.ready.add(plan, member.clone(), ready) {
            Ok(complete) => {
                self.context.watch(RunEvent::MemberReady {
                    member,
                    ready: self.ready.count(),
                    needed: plan.members,
                });
                self.context.write_status(self.ready.progress());
                complete
            }
            Err(refusal) => {
                warn!(%member, reason = %refusal, "a member cannot take part");
                self.context.links.send(&member, refusal.message());
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
