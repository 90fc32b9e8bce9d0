//! What is told of a run beside its progress: what it waits for, how long its stages take, what is
//! known of its members, and what moved. Nothing here decides anything, but for whom the time for keys
//! begins later: [`Overview::fetched`].

use std::collections::BTreeMap;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::messages::ToAggregator;
use fedlora_transport::TransportKind;

use super::messages::{Moved, ToEngine};
use crate::status::StageStatus;

/// How often the log says what is waited for, where nothing changes.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How soon after another a change is told: what changes at once is told at once.
const REFRESH: Duration = Duration::from_secs(1);

/// What a stage waits for. Times are the rounds'.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    /// The stage's name in the status.
    pub(super) stage: String,
    /// When it ends at the latest.
    pub(super) until: Timestamp,
    /// How many members it needs.
    pub(super) needed: usize,
    /// Who has done what it waits for.
    pub(super) ready: Vec<MemberName>,
    /// Who is waited for.
    pub(super) awaited: Vec<MemberName>,
}

/// What is due to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Due {
    #[default]
    Nothing,
    /// The status file.
    Status,
    /// The status file, and a line of the log.
    Line,
}

/// What is known of the run beside its progress, since this process began.
#[derive(Debug, Default)]
pub(super) struct Overview {
    pub(super) stage: Option<StageStatus>,
    pub(super) stage_seconds: BTreeMap<String, f64>,
    pub(super) people: BTreeMap<MemberName, Acquaintance>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) attempts_failed: u32,
    pub(super) messages_refused: u64,
    pub(super) last_result: Option<Timestamp>,
    pub(super) certificate_end: Option<Timestamp>,
    written: Timestamp,
    said: Timestamp,
    /// What has changed since it was told.
    changed: Due,
}

/// What is known of a member.
#[derive(Debug, Clone, Default)]
pub(super) struct Acquaintance {
    pub(super) release: Option<String>,
    pub(super) certificate_end: Option<Timestamp>,
    pub(super) transport: Option<TransportKind>,
    pub(super) last_seen: Option<Timestamp>,
    /// Why it does not take part.
    pub(super) problem: Option<String>,
    /// When bytes of an adapter last reached it, in the rounds' time.
    fetched: Option<Timestamp>,
}

impl Overview {
    /// Takes note of what a session says, at `now` by the clock and at `rounds` by the rounds' time.
    pub(super) fn note(&mut self, message: &ToEngine, now: Timestamp, rounds: Timestamp) {
        match message {
            ToEngine::Connected { member, about, .. } => {
                let known = self.seen(member, now);
                known.release = Some(about.release.clone());
                known.certificate_end = Some(about.certificate_end);
                known.transport = about.transport;
            }
            ToEngine::Disconnected { member, said, .. } => {
                let known = self.seen(member, now);
                if said.is_some() {
                    known.problem.clone_from(said);
                }
            }
            ToEngine::Message { member, message } => {
                let known = self.seen(member, now);
                // It has another plan or other floors by now, or is judged again.
                if matches!(**message, ToAggregator::Ready(_)) {
                    known.problem = None;
                }
            }
            ToEngine::UploadBegins { member, .. } | ToEngine::Uploaded { member, .. } => {
                self.seen(member, now);
            }
            ToEngine::Moved { member, moved } => {
                self.changed(Due::Status);
                match moved {
                    Moved::Update(bytes) => self.received += bytes,
                    Moved::Adapter(bytes) => self.sent += bytes,
                }
                let known = self.seen(member, now);
                if matches!(moved, Moved::Adapter(_)) {
                    known.fetched = Some(rounds);
                }
            }
            ToEngine::OwnCertificate { end } => self.certificate_end = Some(*end),
            ToEngine::FetchAdapter { .. } => {}
        }
    }

    fn seen(&mut self, member: &MemberName, now: Timestamp) -> &mut Acquaintance {
        let known = self.people.entry(member.clone()).or_default();
        known.last_seen = Some(now);
        known
    }

    /// A member does not take part, for this reason.
    pub(super) fn hinders(&mut self, member: &MemberName, problem: String) {
        let known = self.people.entry(member.clone()).or_default();
        known.problem = Some(problem);
    }

    /// The rounds' time is another one from here on.
    pub(super) fn forget_fetches(&mut self) {
        for known in self.people.values_mut() {
            known.fetched = None;
        }
    }

    /// When bytes of an adapter last reached a member, in the rounds' time.
    pub(super) fn fetched(&self, member: &MemberName) -> Option<Timestamp> {
        self.people.get(member)?.fetched
    }

    /// The run waits for something, or for nothing any more. A stage that ended here took its time;
    /// `round` tells one from its repetition.
    pub(super) fn wait_for(&mut self, waiting: Option<StageStatus>, now: Timestamp) {
        let same = match (&self.stage, &waiting) {
            (Some(before), Some(next)) => before.name == next.name,
            (None, None) => true,
            _ => false,
        };
        let since = match (&self.stage, same) {
            (Some(before), true) => before.since,
            (Some(before), false) => {
                let took = before.since.until(now).as_secs_f64();
                self.stage_seconds.insert(before.name.clone(), took);
                now
            }
            (None, _) => now,
        };
        self.stage = waiting.map(|stage| StageStatus { since, ..stage });
    }

    /// Something has changed that is to be told soon.
    pub(super) fn changed(&mut self, due: Due) {
        self.changed = self.changed.max(due);
    }

    /// What is due at `now`.
    pub(super) fn due(&self, now: Timestamp) -> Due {
        if self.said.after(HEARTBEAT) <= now {
            return Due::Line;
        }
        match self.changed {
            Due::Line if self.said.after(REFRESH) <= now => Due::Line,
            Due::Line | Due::Status if self.written.after(REFRESH) <= now => Due::Status,
            _ => Due::Nothing,
        }
    }

    /// This is told at `now`.
    pub(super) fn told(&mut self, due: Due, now: Timestamp) {
        self.written = now;
        if due == Due::Line {
            self.said = now;
        }
        if self.changed <= due {
            self.changed = Due::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str) -> Option<StageStatus> {
        Some(StageStatus {
            name: name.to_owned(),
            since: Timestamp(0),
            until: Timestamp(0),
            needed: 3,
            ready: Vec::new(),
            awaited: Vec::new(),
        })
    }

    #[test]
    fn a_stage_takes_from_its_first_word_to_its_last() {
        let mut overview = Overview::default();
        overview.wait_for(stage("keys"), Timestamp(1000));
        overview.wait_for(stage("keys"), Timestamp(2000));
        assert_eq!(overview.stage.as_ref().unwrap().since, Timestamp(1000));
        overview.wait_for(stage("shares"), Timestamp(3500));
        assert_eq!(overview.stage_seconds["keys"], 2.5);
        overview.wait_for(None, Timestamp(4000));
        assert_eq!(overview.stage_seconds["shares"], 0.5);
        assert_eq!(overview.stage, None);
    }

    #[test]
    fn what_moved_is_written_now_and_then_and_said_seldom() {
        let mut overview = Overview::default();
        let start = Timestamp(100_000);
        assert_eq!(overview.due(start), Due::Line);
        overview.told(Due::Line, start);
        let later = start.after(REFRESH);
        assert_eq!(overview.due(later), Due::Nothing);
        let member: MemberName = "a".parse().unwrap();
        let moved = |moved| ToEngine::Moved {
            member: member.clone(),
            moved,
        };
        overview.note(&moved(Moved::Update(7)), start, start);
        assert_eq!(
            (overview.due(start), overview.due(later)),
            (Due::Nothing, Due::Status)
        );
        assert_eq!(
            (overview.received, overview.sent, overview.fetched(&member)),
            (7, 0, None)
        );
        overview.note(&moved(Moved::Adapter(5)), later, later);
        assert_eq!((overview.sent, overview.fetched(&member)), (5, Some(later)));
        assert_eq!(overview.due(start.after(HEARTBEAT)), Due::Line);
    }
}
