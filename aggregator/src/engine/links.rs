//! The members' connections: who has one, when one broke, and how to reach each member.

use std::collections::BTreeMap;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::messages::{OpenTag, ToMember};
use tokio::sync::mpsc;

use super::messages::SessionId;

/// The members' connections.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: BTreeMap<MemberName, Link>,
    broken: BTreeMap<MemberName, Timestamp>,
}

/// One member's connection.
#[derive(Debug)]
struct Link {
    session: SessionId,
    outbox: mpsc::UnboundedSender<ToMember>,
    /// The round that the member is in, once it has said so on this connection.
    round: Option<Option<OpenTag>>,
    /// Whether it has accepted the roster on this connection: it is shown all results then.
    has_accepted: bool,
}

impl Links {
    pub(super) fn connect(
        &mut self,
        member: MemberName,
        session: SessionId,
        outbox: mpsc::UnboundedSender<ToMember>,
    ) {
        self.broken.remove(&member);
        let link = Link {
            session,
            outbox,
            round: None,
            has_accepted: false,
        };
        self.open.insert(member, link);
    }

    /// Notes that a connection broke; the end of one that was replaced changes nothing.
    pub(super) fn disconnect(&mut self, member: &MemberName, session: SessionId, now: Timestamp) {
        if self
            .open
            .get(member)
            .is_some_and(|link| link.session == session)
        {
            self.open.remove(member);
            self.broken.insert(member.clone(), now);
        }
    }

    /// A member is to come back, as if its connection had broken at `since`.
    pub(super) fn await_return(&mut self, member: &MemberName, since: Timestamp) {
        self.broken.insert(member.clone(), since);
    }

    pub(super) fn send(&self, member: &MemberName, message: ToMember) {
        if let Some(link) = self.open.get(member) {
            // A closed outbox is a connection that is about to be reported as broken.
            let _ = link.outbox.send(message);
        }
    }

    /// Sends a message of the rounds, where the member has accepted the roster on this connection. One
    /// that has not yet lacks the results before it, and is told what is outstanding once it has.
    pub(super) fn tell(&self, member: &MemberName, message: ToMember) {
        let link = self.open.get(member);
        if let Some(link) = link.filter(|link| link.has_accepted) {
            let _ = link.outbox.send(message);
        }
    }

    /// Notes that a member has accepted the roster on its connection, and the round that it is in.
    pub(super) fn accepts(&mut self, member: &MemberName, round: Option<OpenTag>) {
        if let Some(link) = self.open.get_mut(member) {
            link.has_accepted = true;
            link.round = Some(round);
        }
    }

    pub(super) fn broadcast(&self, message: &ToMember) {
        for link in self.open.values() {
            let _ = link.outbox.send(message.clone());
        }
    }

    pub(super) fn is_connected(&self, member: &MemberName) -> bool {
        self.open.contains_key(member)
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Notes which round a member is in, as it says.
    pub(super) fn is_in(&mut self, member: &MemberName, round: Option<OpenTag>) {
        if let Some(link) = self.open.get_mut(member) {
            link.round = Some(round);
        }
    }

    /// Whether a connected member has said that it is in no round, or in another one.
    pub(super) fn is_elsewhere(&self, member: &MemberName, round: OpenTag) -> bool {
        let said = self.open.get(member).and_then(|link| link.round);
        said.is_some_and(|said| said != Some(round))
    }

    /// When a member's connection broke: the Unix epoch where it never had one, nothing while it
    /// has one.
    pub(super) fn broken_since(&self, member: &MemberName) -> Option<Timestamp> {
        if self.is_connected(member) {
            return None;
        }
        Some(self.broken.get(member).copied().unwrap_or_default())
    }
}
