//! The members' connections: who has one, when one broke, and how to reach each member.

use std::collections::BTreeMap;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::messages::ToMember;
use tokio::sync::mpsc;

use super::messages::SessionId;

/// The members' connections.
#[derive(Debug, Default)]
pub(super) struct Links {
    open: BTreeMap<MemberName, (SessionId, mpsc::UnboundedSender<ToMember>)>,
    broken: BTreeMap<MemberName, Timestamp>,
}

impl Links {
    pub(super) fn connect(
        &mut self,
        member: MemberName,
        session: SessionId,
        outbox: mpsc::UnboundedSender<ToMember>,
    ) {
        self.broken.remove(&member);
        self.open.insert(member, (session, outbox));
    }

    /// Notes that a connection broke; the end of one that was replaced changes nothing.
    pub(super) fn disconnect(&mut self, member: &MemberName, session: SessionId, now: Timestamp) {
        if self.open.get(member).is_some_and(|(id, _)| *id == session) {
            self.open.remove(member);
            self.broken.insert(member.clone(), now);
        }
    }

    /// A member is to come back, as if its connection had broken at `since`.
    pub(super) fn await_return(&mut self, member: &MemberName, since: Timestamp) {
        self.broken.insert(member.clone(), since);
    }

    pub(super) fn send(&self, member: &MemberName, message: ToMember) {
        if let Some((_, outbox)) = self.open.get(member) {
            // A closed outbox is a connection that is about to be reported as broken.
            let _ = outbox.send(message);
        }
    }

    pub(super) fn broadcast(&self, message: &ToMember) {
        for (_, outbox) in self.open.values() {
            let _ = outbox.send(message.clone());
        }
    }

    pub(super) fn is_connected(&self, member: &MemberName) -> bool {
        self.open.contains_key(member)
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
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
