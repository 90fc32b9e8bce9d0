//! What a phase knows of the run's progress, as the status file shows it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, MemberName, RoundNumber, RunId};
use fedlora_protocol::wire::messages::PhaseName;

use super::links::Links;
use super::overview::{Overview, Waiting};
use crate::status::{MemberStatus, RunState, StageStatus, Status};

/// A phase's part of the status.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    pub(super) state: RunState,
    /// Why the run failed, where it did.
    pub(super) failure: Option<String>,
    /// The current round's phase, or the phase in which the run failed.
    pub(super) phase: Option<PhaseName>,
    pub(super) rounds_done: u32,
    /// Rounds whose step was scaled down to the plan's largest.
    pub(super) rounds_scaled: u32,
    /// Rounds that took the step before back.
    pub(super) rounds_taken_back: u32,
    /// The attempt at the current round, where one is open.
    pub(super) attempt: Option<Attempt>,
    /// What the run waits for; nothing once it is over.
    pub(super) waiting: Option<Waiting>,
    /// The run's members, or all that there are, each with the rounds whose sum it is in.
    pub(super) members: Vec<(Cow<'a, MemberName>, u32)>,
    /// What differs about members that are ready.
    pub(super) differing: BTreeMap<MemberName, String>,
    /// The pooled validation loss that the newest result tells.
    pub(super) pooled_loss: Option<f32>,
    /// The newest global adapter.
    pub(super) adapter: Option<Digest>,
    /// The round whose adapter is the run's result, if it ended now.
    pub(super) result: Option<RoundNumber>,
    /// Whether the plan's patience has ended the run.
    pub(super) stopped: bool,
}

impl Progress<'_> {
    /// The same, where the run waits for something.
    #[must_use]
    pub(super) fn waiting_for(self, waiting: Waiting) -> Self {
        Self {
            waiting: Some(waiting),
            ..self
        }
    }

    /// The stage, on the clock that is ahead of the rounds' time by `ahead`.
    pub(super) fn stage(&self, ahead: Duration) -> Option<StageStatus> {
        let waiting = self.waiting.as_ref()?;
        Some(StageStatus {
            name: waiting.stage.clone(),
            since: Timestamp::default(),
            until: waiting.until.after(ahead),
            needed: waiting.needed,
            ready: waiting.ready.clone(),
            awaited: waiting.awaited.clone(),
        })
    }

    /// The whole status.
    pub(super) fn status(
        self,
        run: RunId,
        federation: &str,
        rounds_planned: u32,
        (links, overview): (&Links, &Overview),
        now: Timestamp,
    ) -> Status {
        let ready = |name: &MemberName| {
            // In the order of the names, as the phases give them.
            let stage = overview.stage.as_ref();
            stage.is_some_and(|stage| stage.ready.binary_search(name).is_ok())
        };
        let member = |(name, rounds): (Cow<'_, MemberName>, u32)| {
            let known = overview.people.get(&*name).cloned().unwrap_or_default();
            let connected = links.is_connected(&name);
            MemberStatus {
                connected,
                transport: known.transport.filter(|_| connected),
                ready: ready(&name),
                rounds,
                problem: self.differing.get(&*name).cloned().or(known.problem),
                release: known.release,
                last_seen: known.last_seen,
                certificate_end: known.certificate_end,
                name: name.into_owned(),
            }
        };
        Status {
            schema_version: 1,
            federation: federation.to_owned(),
            run: run.to_string(),
            state: self.state,
            failure: self.failure,
            rounds_planned,
            rounds_done: self.rounds_done,
            rounds_scaled: self.rounds_scaled,
            rounds_taken_back: self.rounds_taken_back,
            phase: self.phase.map(|phase| phase.to_string()),
            attempt: self.attempt.map(|attempt| attempt.0),
            stage: overview.stage.clone(),
            stage_seconds: overview.stage_seconds.clone(),
            members: self.members.into_iter().map(member).collect(),
            adapter: self.adapter.map(|digest| digest.to_string()),
            best_round: self.result.map(|round| round.0),
            stopped_early: self.stopped && self.rounds_done < rounds_planned,
            attempts_failed: overview.attempts_failed,
            messages_refused: overview.messages_refused,
            bytes_received: overview.received,
            bytes_sent: overview.sent,
            pooled_loss: self.pooled_loss,
            last_result: overview.last_result,
            certificate_end: overview.certificate_end,
            standby_of: None,
            certificates_waiting: Vec::new(),
            updated: now,
            pid: std::process::id(),
        }
    }
}
