//! Whom a round waits for, for how long, and what is told of it: deadlines, members that stay away or do
//! nothing, faults.

use std::collections::BTreeSet;
use std::time::Duration;

use fedlora_protocol::ids::MemberIndex;
use fedlora_protocol::round::coordinator::{Event, EventKind, Fault, Input};
use fedlora_protocol::wire::messages::PhaseName;
use tracing::{info, warn};

use super::{CurrentRound, Step};
use crate::blocking;
use crate::engine::farewell::Farewell;
use crate::engine::messages::RunEvent;
use crate::engine::overview::{Due, Waiting};
use crate::engine::patience::Downloads;
use crate::publish;
use crate::status::RunState;

impl CurrentRound {
    /// Closes phases whose time is up, and continues without members that stay away.
    pub(super) async fn pass_time(self) -> Result<Step, Box<Farewell>> {
        let mut current = match self.decide(Input::Tick) {
            Ok(event) if !self.waits_for_downloads() => match self.advance(event).await? {
                Step::Open(current) => current,
                closed => return Ok(closed),
            },
            _ => self,
        };
        current.tell(current.context.due());
        for (member, why) in current.absent() {
            if let Ok(event) = current.decide(Input::Absent { member }) {
                let name = current.chain.display(member);
                // Whom these phases wait for is in the sum.
                match current.coordinator.phase() {
                    Some(PhaseName::Confirm | PhaseName::Reveal) => info!(
                        member = %name,
                        "the member {why}; its update of this round counts, and the round ends \
                         without it"
                    ),
                    _ => warn!(
                        member = %name, "the member {why}; the round continues without it"
                    ),
                }
                current = match current.advance(event).await? {
                    Step::Open(current) => current,
                    closed => return Ok(closed),
                };
            }
        }
        Ok(Step::Open(current))
    }

    /// Whether the time for keys is up while awaited members still fetch the adapter that they train:
    /// theirs begins when they have it. No longer than an update may take, in all.
    fn waits_for_downloads(&self) -> bool {
        if !matches!(
            self.coordinator.phase(),
            Some(PhaseName::Commit | PhaseName::Keys)
        ) {
            return false;
        }
        let timeouts = &self.context.setup.plan.timeouts;
        let downloads = Downloads {
            opened: self.opened,
            keys: Duration::from_secs(timeouts.keys),
            longest: Duration::from_secs(timeouts.update),
        };
        let awaited = self.coordinator.awaited();
        let names = awaited.iter().filter_map(|one| self.chain.name_of(*one));
        let fetched = names
            .filter(|name| self.context.links.is_connected(name))
            .filter_map(|name| self.context.fetched(name));
        downloads.hold_open(fetched, self.context.now())
    }

    /// The awaited members that have been away for longer than the plan's patience, cannot go on, or
    /// do nothing.
    fn absent(&mut self) -> Vec<(MemberIndex, &'static str)> {
        let patience = Duration::from_secs(self.context.setup.plan.timeouts.reconnect);
        let now = self.context.now();
        let awaited = self.coordinator.awaited();
        let away = |member: &MemberIndex| {
            self.chain
                .name_of(*member)
                .and_then(|name| self.context.links.broken_since(name))
                // Who was away before gets the same time to come back for this round.
                .is_some_and(|since| since.max(self.opened).after(patience) <= now)
        };
        let (away, present): (Vec<_>, Vec<_>) = awaited.into_iter().partition(away);
        let (lost, present): (Vec<_>, Vec<_>) = present
            .into_iter()
            .partition(|member| self.has_lost_round(*member));
        let silent = if self.coordinator.phase() == Some(PhaseName::Updates) {
            self.working.silent(&present, now)
        } else {
            Vec::new()
        };
        for member in &silent {
            self.context.offenders.add(*member);
        }
        let told = |members: Vec<_>, why| members.into_iter().map(move |member| (member, why));
        told(away, "stays away")
            .chain(told(
                lost,
                "was started again and has lost this round's keys",
            ))
            .chain(told(silent, "makes no progress"))
            .collect()
    }

    /// Remembers the connected members that a phase has waited for in vain.
    pub(super) fn remember_late(&mut self, event: &Event) {
        if event.kind != EventKind::TimeUp || self.coordinator.has_enough() {
            return;
        }
        for member in self.coordinator.awaited() {
            let connected = self.chain.name_of(member);
            if connected.is_some_and(|name| self.context.links.is_connected(name)) {
                self.offend(member);
            }
        }
    }

    /// Takes note of a member that takes no further part.
    pub(super) fn note_left(&mut self, event: &Event) {
        if let EventKind::Left(member) = &event.kind {
            self.left.insert(*member);
        }
    }

    /// A member held up the round: no phase waits for it again until it is in a sum.
    pub(super) fn offend(&mut self, member: MemberIndex) {
        if self.context.offenders.add(member) {
            let member = self.chain.display(member);
            warn!(%member, "the member held up the round: the next ones do not wait for it");
        }
    }

    /// Tells of a member's fault, and keeps what proves it.
    pub(super) fn blame(&mut self, fault: Fault) {
        let member = fault.member();
        let name = self.chain.display(member);
        let what = self.chain.roster.naming(&fault.to_string());
        warn!(member = %name, fault = %what, "a member broke the protocol");
        // Who may have been lied about is waited for as before.
        if fault.is_certain(self.context.policy.colluders()) {
            self.offend(member);
        }
        if let Some(evidence) = fault.evidence() {
            match blocking::in_place(|| {
                publish::store_evidence(&self.context.setup.directory, evidence, member)
            }) {
                Ok(path) => warn!(member = %name, path = %path.display(), "the evidence is kept"),
                Err(error) => warn!(member = %name, %error, "the evidence cannot be kept"),
            }
        }
        let fault = Box::new(fault);
        self.context.watch(RunEvent::Blamed { fault });
    }

    /// Tells what is due of whom the phase waits for.
    pub(super) fn tell(&mut self, due: Due) {
        if due == Due::Nothing {
            return;
        }
        let phase = self.coordinator.phase();
        let mut progress = self.chain.progress(RunState::Running, None, phase);
        progress.attempt = Some(self.coordinator.setup().open().attempt);
        if let Some(phase) = phase {
            let awaited: BTreeSet<_> = self.coordinator.awaited().into_iter().collect();
            let (left, chain) = (&self.left, &self.chain);
            let name = |member: &MemberIndex| chain.name_of(*member).cloned();
            let mut answered = self.phase_began_with.clone();
            answered.retain(|member| !awaited.contains(member) && !left.contains(member));
            answered.sort();
            progress = progress.waiting_for(Waiting {
                stage: phase.to_string(),
                until: self.coordinator.deadline(),
                needed: answered.len() + awaited.len(),
                ready: answered.iter().filter_map(name).collect(),
                awaited: awaited.iter().filter_map(name).collect(),
            });
        }
        self.context.tell(due, progress);
    }
}
