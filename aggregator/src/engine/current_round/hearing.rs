//! What sessions say in a round: connections, control messages, uploads.

use std::path::PathBuf;

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberIndex, MemberName};
use fedlora_protocol::round::coordinator::{Event, Input, Reject};
use fedlora_protocol::wire::messages::{PhaseName, RoundMessage, ToAggregator};
use tracing::{debug, info, warn};

use super::{CurrentRound, Step};
use crate::engine::farewell::Farewell;
use crate::engine::messages::{RunEvent, ToEngine};
use crate::engine::overview::Due;
use crate::engine::refusal::{MemberRefusal, UploadRefusal};

impl CurrentRound {
    /// Deals with one message from a session.
    pub(super) async fn handle(mut self, message: ToEngine) -> Result<Step, Box<Farewell>> {
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
                self.context.overview.changed(Due::Status);
            }
            ToEngine::Moved { .. } | ToEngine::OwnCertificate { .. } => {}
            ToEngine::FetchAdapter { adapter, reply } => {
                let _ = reply.send(self.chain.fetch(&self.context, &adapter));
            }
            ToEngine::UploadBegins {
                member,
                open,
                length,
                reply,
            } => {
                let admitted = self.admit_upload(&member, &open, length);
                if let (Ok(_), Some(from)) = (&admitted, self.chain.index_of(&member)) {
                    self.working.hear(from, self.context.now());
                }
                let _ = reply.send(admitted);
            }
            ToEngine::Uploaded {
                member,
                open,
                claim,
                reply,
            } => {
                let Some(from) = self.chain.index_of(&member) else {
                    let _ = reply.send(Err(UploadRefusal::NotOnRoster));
                    return Ok(Step::Open(self));
                };
                let input = Input::Uploaded { from, open, claim };
                match self.judge_upload(from, input) {
                    Ok(event) => {
                        // The member hears nothing, and uploads again once the run goes on.
                        if let Err(error) = self.tally.keep(from) {
                            return Err(self.stop(error));
                        }
                        let step = self.advance(event).await;
                        let _ = reply.send(Ok(()));
                        return step;
                    }
                    Err(refusal) => {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
            ToEngine::Message { member, message } => return self.hear(member, *message).await,
        }
        Ok(Step::Open(self))
    }

    /// Deals with a member's control message.
    async fn hear(
        mut self,
        member: MemberName,
        message: ToAggregator,
    ) -> Result<Step, Box<Farewell>> {
        if let ToAggregator::Round { open, .. } = &message {
            self.context.links.is_in(&member, Some(*open));
        }
        let links = &mut self.context.links;
        match (self.chain.index_of(&member), message) {
            // It closes its connection next, or waits for a round.
            (_, ToAggregator::Fetched { adapter }) => {
                debug!(%member, %adapter, "the member holds the adapter");
            }
            (None, _) => links.send(&member, MemberRefusal::RosterClosed.message()),
            (Some(_), ToAggregator::Ready(_)) => self.chain.show_roster(links, &member),
            // It takes part from here on: it may have asked its user, or come back.
            (Some(_), ToAggregator::Accepted { round, .. }) => {
                links.accepts(&member, round);
                self.bring_back(&member);
            }
            (
                Some(from),
                ToAggregator::Round {
                    message: RoundMessage::Working,
                    ..
                },
            ) => self.working.hear(from, self.context.now()),
            (Some(from), ToAggregator::Round { open, message }) => {
                let input = Input::Message {
                    from,
                    open,
                    message,
                };
                if let Ok(event) = self.decide_from(from, input) {
                    return self.advance(event).await;
                }
            }
        }
        Ok(Step::Open(self))
    }

    /// Tells a member that is connected where the run stands, and what it is waited for with.
    pub(super) fn bring_back(&self, member: &MemberName) {
        let links = &self.context.links;
        let Some(from) = self
            .chain
            .index_of(member)
            .filter(|_| links.is_connected(member))
        else {
            return;
        };
        self.chain.show_results(links, member);
        for message in self.coordinator.outstanding(from) {
            links.send(member, message);
        }
    }

    /// Whether a member that is back has lost the round: it gave a part of it and was started again,
    /// so that its keys are gone, and it cannot go on.
    pub(super) fn has_lost_round(&self, member: MemberIndex) -> bool {
        let tag = (*self.coordinator.setup().digest()).into();
        let name = self.chain.name_of(member);
        name.is_some_and(|name| self.context.links.is_elsewhere(name, tag))
            && !self.coordinator.can_begin(member)
    }

    /// Judges what a member sent. What is wrong with it is logged: what came late or twice is nothing
    /// to worry about.
    pub(super) fn decide_from(
        &mut self,
        member: MemberIndex,
        input: Input,
    ) -> Result<Event, Reject> {
        let decided = self.decide(input);
        if let Err(reason) = &decided {
            let name = self.chain.display(member);
            let said = self.chain.roster.naming(&reason.to_string());
            match reason.is_harmless() {
                true => info!(member = %name, reason = %said, "a message was not needed"),
                false => warn!(member = %name, reason = %said, "a message was not taken"),
            }
            self.context.overview.messages_refused += u64::from(!reason.is_harmless());
            self.context.watch(RunEvent::Rejected {
                member,
                reason: reason.clone(),
            });
        }
        decided
    }

    /// Says where a member may store its update, while one is awaited from it.
    fn admit_upload(
        &self,
        member: &MemberName,
        open: &Digest,
        length: u64,
    ) -> Result<PathBuf, UploadRefusal> {
        let setup = self.coordinator.setup();
        let from = self
            .chain
            .index_of(member)
            .filter(|from| self.coordinator.awaited().contains(from))
            .ok_or(UploadRefusal::NotAwaited)?;
        if self.coordinator.phase() != Some(PhaseName::Updates) || open != setup.digest() {
            return Err(UploadRefusal::OtherRound);
        }
        let expected = self.tally.update_bytes();
        if length != expected {
            return Err(UploadRefusal::Length {
                expected,
                found: length,
            });
        }
        Ok(self.tally.path(from))
    }

    /// Judges a stored update, once it is sure that it can be added: from the event on, its sender
    /// counts as a survivor.
    fn judge_upload(&mut self, from: MemberIndex, input: Input) -> Result<Event, UploadRefusal> {
        self.tally.check(from)?;
        self.decide_from(from, input)
            .map_err(|reject| UploadRefusal::Rejected {
                said: self.chain.roster.naming(&reject.to_string()),
                reject,
            })
    }
}
