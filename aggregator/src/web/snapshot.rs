//! What the page shows of all federations at one moment, and what `/api/status.json` gives: read from
//! the operators' directories, which are never changed here.

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::MemberName;
use serde::Serialize;

use super::problems::Problem;
use crate::run_list::{ListedRun, ListedState};
use crate::run_record::RunRecord;
use crate::status::{RunState, Status};

/// All federations that the process serves, as one JSON document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Snapshot {
    /// The version of this document's schema: 1.
    pub(super) schema_version: u32,
    /// The aggregator's release.
    pub(super) release: &'static str,
    /// When all of this was read.
    pub(super) at: Timestamp,
    /// The federations, in the order in which the command line names them.
    pub(super) federations: Vec<FederationView>,
}

/// One federation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FederationView {
    /// Its place in the order of the command line, from 1.
    pub(super) number: usize,
    /// Its name.
    pub(super) federation: String,
    /// The run that is served, or was served last: the document of `status --format json`. Null where no
    /// run was served yet, or the file cannot be read.
    pub(super) status: Option<Status>,
    /// The same run's results so far; null before its members were complete.
    pub(super) current: Option<RunView>,
    /// All runs, as `run list --format json` has them.
    pub(super) runs: Vec<ListedRun>,
    /// The names of all members that have joined.
    pub(super) members: Vec<MemberName>,
    /// The file system of the operator's directory; null where the system does not tell.
    pub(super) disk: Option<DiskRoom>,
    /// What somebody should look at.
    pub(super) problems: Vec<Problem>,
}

/// Room on a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct DiskRoom {
    /// What the aggregator can still write.
    pub(super) free_bytes: u64,
    /// All of it.
    pub(super) size_bytes: u64,
}

/// One run with its verified results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RunView {
    /// The run's identifier, in hexadecimal.
    pub(super) run: String,
    /// What `base_model_name_or_path` says in its adapters; may be empty.
    pub(super) base: String,
    /// Rounds of the plan.
    pub(super) rounds_planned: u32,
    /// The members of the run, in the order of its roster.
    pub(super) members: Vec<MemberName>,
    /// The round whose adapter is the run's result, if it ended now; 0 for the first adapter, null before
    /// the first round is done.
    pub(super) best_round: Option<u32>,
    /// The rounds that are done, in order.
    pub(super) rounds: Vec<RoundView>,
    /// The digest that stands for plan, roster and all results.
    pub(super) head: String,
    /// Eight words for it: members' `fedlora runs` shows the same.
    pub(super) words: String,
}

/// One round that is done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct RoundView {
    /// Its number, from 1.
    pub(super) round: u32,
    /// The attempt that reached the result, from 1.
    pub(super) attempt: u32,
    /// The digest of the adapter after it, in hexadecimal.
    pub(super) adapter: String,
    /// The members in the sum.
    pub(super) survivors: Vec<MemberName>,
    /// All other members of the run.
    pub(super) dropped: Vec<MemberName>,
    /// The survivors' pooled training loss in nats a token; null with fewer than five survivors.
    pub(super) training_loss: Option<f32>,
    /// The pooled validation loss of the adapter that the round began with, likewise.
    pub(super) validation_loss: Option<f32>,
    /// Survivors whose change was longer than the clip, likewise.
    pub(super) clipped: Option<u16>,
    /// Survivors that found the adapter before the round worse than the one before that, likewise.
    pub(super) votes: Option<u16>,
    /// Whether the round took the step before it back, because of these votes.
    pub(super) taken_back: bool,
}

impl RunView {
    /// The view of a run's record, with the words that stand for its head.
    pub(super) fn of(record: &RunRecord, words: String) -> Self {
        let verified = &record.verified;
        let entries = record.receipt.roster.entries().iter();
        let rounds: Vec<_> = verified
            .results
            .iter()
            .map(|result| RoundView {
                round: result.round.0,
                attempt: result.attempt.0,
                adapter: result.adapter.to_string(),
                survivors: record.names_of(&result.survivors),
                dropped: record.names_of(&result.dropped),
                training_loss: result.train_loss,
                validation_loss: result.eval_loss,
                clipped: result.clipped,
                votes: result.votes,
                taken_back: record.takes_back(result),
            })
            .collect();
        Self {
            run: verified.run.to_string(),
            base: verified.plan.base.name.clone(),
            rounds_planned: verified.plan.rounds,
            members: entries.map(|entry| entry.name.clone()).collect(),
            best_round: (!rounds.is_empty()).then(|| record.best_round().0),
            rounds,
            head: verified.head.to_string(),
            words,
        }
    }

    /// Adapters and their pooled validation losses: the adapter after a round, 0 for the first one.
    pub(super) fn losses(&self) -> Vec<(u32, f32)> {
        let told = self.rounds.iter();
        told.filter_map(|one| Some((one.round - 1, one.validation_loss?)))
            .filter(|(_, loss)| loss.is_finite())
            .collect()
    }
}

impl FederationView {
    /// Whether a run is served just now.
    pub(super) fn is_live(&self) -> bool {
        let live =
            |status: &Status| matches!(status.state, RunState::Gathering | RunState::Running);
        self.status.as_ref().is_some_and(live)
    }

    /// A run of the federation by its identifier.
    pub(super) fn run(&self, run: &str) -> Option<&ListedRun> {
        self.runs.iter().find(|one| one.run == run)
    }

    /// How many runs stand there.
    pub(super) fn count(&self, state: ListedState) -> usize {
        self.runs.iter().filter(|one| one.state == state).count()
    }
}
