//! The second phase: the cohort is complete, and waits until its members have accepted the
//! roster. A member may ask its user, which takes minutes.

use std::collections::BTreeSet;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberIndex, MemberName};
use fedlora_protocol::wire::messages::{ToAggregator, ToMember};
use tracing::{debug, info, warn};

use super::chain::AdapterChain;
use super::context::{Arrival, RunContext};
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use super::messages::ToEngine;
use super::overview::{Due, Waiting};
use super::refusal::{MemberRefusal, UploadRefusal};
use super::running::Running;
use crate::status::RunState;

/// A run whose roster is closed, before its first round.
#[derive(Debug)]
pub(super) struct Consent {
    context: RunContext,
    chain: AdapterChain,
    accepted: BTreeSet<MemberIndex>,
    deadline: Timestamp,
}

impl Consent {
    /// Shows the roster to its members.
    pub(super) fn begin(context: RunContext, chain: AdapterChain) -> Self {
        let roster = ToMember::Roster(chain.roster.as_ref().clone());
        chain.broadcast(&context.links, &roster);
        let join = Duration::from_secs(context.setup.plan.timeouts.join);
        let mut consent = Self {
            deadline: context.now().after(join),
            context,
            chain,
            accepted: BTreeSet::new(),
        };
        consent.tell(Due::Line);
        consent
    }

    /// Waits until all members have accepted the roster, at most as long as for joining. Then
    /// the rounds begin with those that have, where they are a quorum; the others may follow.
    pub(super) async fn complete(mut self) -> Result<Running, Box<Farewell>> {
        match self.wait_for_members().await {
            Ok(()) => Ok(Running::new(self.context, self.chain)),
            Err(failure) => Err(Box::new(Farewell::failed(
                self.context,
                Reached::Rounds {
                    chain: Box::new(self.chain),
                    phase: None,
                },
                failure,
            ))),
        }
    }

    async fn wait_for_members(&mut self) -> Result<(), RunFailure> {
        while self.accepted.len() < self.chain.roster.len() {
            let left = self.context.now().until(self.deadline);
            match self.context.arrival(left).await {
                Arrival::Message(message) => self.handle(message),
                Arrival::Closed => return Err(RunFailure::Stopped),
                Arrival::Nothing if left.is_zero() => return self.close(),
                Arrival::Nothing => {}
            }
            self.tell(self.context.due());
        }
        info!("all members have accepted the roster");
        Ok(())
    }

    /// The time is up.
    fn close(&self) -> Result<(), RunFailure> {
        let (accepted, quorum) = (self.accepted.len(), self.context.policy.quorum());
        if accepted < quorum {
            return Err(RunFailure::Consent { accepted, quorum });
        }
        let (_, others) = self.chain.split(|index| self.accepted.contains(&index));
        let without: Vec<_> = others.iter().map(MemberName::as_str).collect();
        let (members, without) = (self.chain.roster.len(), without.join(", "));
        warn!(
            accepted,
            members, without, "the rounds begin without some members"
        );
        Ok(())
    }

    fn handle(&mut self, message: ToEngine) {
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
                let due = if said.is_some() {
                    Due::Line
                } else {
                    Due::Status
                };
                self.context.overview.changed(due);
            }
            ToEngine::Message { member, message } => self.hear(&member, &message),
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
    }

    fn hear(&mut self, member: &MemberName, message: &ToAggregator) {
        let Some(index) = self.chain.index_of(member) else {
            let refusal = MemberRefusal::RosterClosed.message();
            self.context.links.send(member, refusal);
            return;
        };
        match message {
            ToAggregator::Ready(_) => self.chain.show_roster(&self.context.links, member),
            ToAggregator::Accepted { roster, round } if *roster == self.roster() => {
                self.accepted.insert(index);
                self.context.links.accepts(member, *round);
                let (accepted, members) = (self.accepted.len(), self.chain.roster.len());
                info!(%member, accepted, members, "the member has accepted the roster");
                self.context.overview.changed(Due::Line);
            }
            ToAggregator::Accepted { .. }
            | ToAggregator::Round { .. }
            | ToAggregator::Fetched { .. } => {
                debug!(%member, "a message before the first round");
            }
        }
    }

    fn roster(&self) -> Digest {
        self.chain.roster.digest()
    }

    /// Tells what is due of who has accepted the roster.
    fn tell(&mut self, due: Due) {
        if due == Due::Nothing {
            return;
        }
        let (ready, awaited) = self.chain.split(|index| self.accepted.contains(&index));
        let waiting = Waiting {
            stage: "consent".to_owned(),
            until: self.deadline,
            needed: self.chain.roster.len(),
            ready,
            awaited,
        };
        let progress = self.chain.progress(RunState::Gathering, None, None);
        self.context.tell(due, progress.waiting_for(waiting));
    }
}
