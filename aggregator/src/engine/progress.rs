//! What a phase knows of the run's progress, as the status file shows it.

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RoundNumber, RunId};
use fedlora_protocol::wire::messages::PhaseName;

use super::links::Links;
use crate::status::{MemberStatus, RunState, Status};

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
    /// The run's members, or those that are ready, each with the rounds whose sum it is in.
    pub(super) members: Vec<(&'a MemberName, u32)>,
    /// The newest global adapter.
    pub(super) adapter: Option<Digest>,
    /// The round whose adapter is the run's result, if it ended now.
    pub(super) result: Option<RoundNumber>,
    /// Whether the plan's patience has ended the run.
    pub(super) stopped: bool,
}

impl Progress<'_> {
    /// The whole status.
    pub(super) fn status(
        self,
        run: RunId,
        federation: &str,
        rounds_planned: u32,
        links: &Links,
        now: Timestamp,
    ) -> Status {
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
            members: self
                .members
                .into_iter()
                .map(|(name, rounds)| MemberStatus {
                    connected: links.is_connected(name),
                    rounds,
                    name: name.clone(),
                })
                .collect(),
            adapter: self.adapter.map(|digest| digest.to_string()),
            best_round: self.result.map(|round| round.0),
            stopped_early: self.stopped && self.rounds_done < rounds_planned,
            updated: now,
            pid: std::process::id(),
        }
    }
}
