//! A round once more, from its record: every event is judged again, the masked updates are added,
//! the masks come off, and the outcome is compared with the signed result.

use std::sync::Arc;

use fedlora_adapter::AdapterError;
use fedlora_protocol::fixed::{AUXILIARY_LANES, RoundSum, WeightedMean};
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::round::coordinator::{
    Completed, Coordinator, CoordinatorEffect as Effect, Event, EventKind, RoundSetup,
};
use fedlora_protocol::wire::messages::{Open, RoundFailure, RoundResult};

use super::events::EventReader;
use super::folder::{AttemptFolder, RecordFolder};
use super::record::KeptOpening;
use super::report::{Comparison, Finding, ReplayReport};
use super::run::KeptRun;
use super::uploads::KeptUploads;
use super::{AuditError, read_json, unreadable};
use crate::optimizer::{ServerOptimizer, StateOf};
use crate::publish::{self, GlobalState};
use crate::run_directory::RunDirectory;

/// Replays a round from its record, and compares it with the round's signed result. Without the
/// masked updates it compares who took part and the transcript, and says so.
///
/// # Errors
/// [`AuditError`] where the record is too incomplete for a replay. What it finds wrong with a record
/// that can be replayed is in the report.
pub fn replay(directory: &RunDirectory, round: RoundNumber) -> Result<ReplayReport, AuditError> {
    let record = RecordFolder::new(directory, true);
    let kept = KeptRun::read(directory, &record)?;
    let result = kept.result(round)?;
    let mut findings = Vec::new();
    let standing = kept.standing_before(round, &mut findings)?;
    let folder = AttemptFolder::new(&record, round, result.attempt);
    let opening: KeptOpening = read_json(&folder.open())?;

    let factors = kept.plan.adapter.factors.factors_in(round);
    let part = kept.first.layout().subset(factors);
    let part = part.map_err(AdapterError::Layout)?;
    let place = (round, result.attempt);
    if opening.open != standing.open(&kept.plan, &kept.policy, part.digest(), place) {
        findings.push(Finding::Opening);
    }

    let open = opening.open.clone();
    let lanes = part.len() + AUXILIARY_LANES;
    let groups = kept.policy.groups().count();
    let uploads = KeptUploads::new(folder.clone(), open.bits, lanes, groups);
    let mut walk = Walk::begin(&kept, opening, uploads, findings);
    let path = folder.events();
    let events = EventReader::open(&path).map_err(|error| unreadable(&path, error))?;
    walk.through(events)?;

    // The plan, and each result up to the round's own.
    let signatures = walk.signatures + 1 + round.0 as usize;
    let mut report = ReplayReport {
        run: kept.run.to_string(),
        round,
        attempt: result.attempt,
        aggregator: kept.aggregator.fingerprint(),
        roster: kept.roster.digest(),
        members: kept.roster.len(),
        survivors: Vec::new(),
        events: walk.events,
        signatures,
        participation: Comparison::NotComputed,
        transcript: Comparison::NotComputed,
        sum: Comparison::NotComputed,
        losses: Comparison::NotComputed,
        adapter: Comparison::NotComputed,
        faults: walk.faults,
        findings: walk.findings,
        names: Arc::clone(&kept.roster),
    };
    match walk.end {
        Some(Ok(completed)) => {
            let outcome = Outcome {
                directory,
                kept: &kept,
                open: &open,
                part: &part,
                result,
            };
            outcome.compare(*completed, walk.uploads, &mut report)?;
        }
        Some(Err(reason)) => report.findings.push(Finding::Failed(reason)),
        None if report.findings.is_empty() => report.findings.push(Finding::Unfinished),
        None => {}
    }
    Ok(report)
}

/// The way through an attempt's events.
struct Walk {
    /// None after an event that is not genuine.
    coordinator: Option<Coordinator>,
    uploads: KeptUploads,
    events: usize,
    signatures: usize,
    faults: Vec<String>,
    findings: Vec<Finding>,
    end: Option<Result<Box<Completed>, RoundFailure>>,
}

impl Walk {
    fn begin(
        kept: &KeptRun,
        opening: KeptOpening,
        uploads: KeptUploads,
        findings: Vec<Finding>,
    ) -> Self {
        let roster = Arc::clone(&kept.roster);
        let setup = RoundSetup::new(opening.open, roster, kept.policy, &kept.plan);
        let setup = Arc::new(setup.not_waiting_for(opening.offenders));
        let (coordinator, _) = Coordinator::open(setup, opening.opened);
        Self {
            coordinator: Some(coordinator),
            uploads,
            events: 0,
            signatures: 0,
            faults: Vec::new(),
            findings,
            end: None,
        }
    }

    /// Judges and applies one event after another, up to the first that is not genuine.
    fn through(
        &mut self,
        events: impl Iterator<Item = Result<Event, super::EventFileError>>,
    ) -> Result<(), AuditError> {
        for (place, event) in events.enumerate() {
            let number = place + 1;
            let Some(coordinator) = self.coordinator.take() else {
                return Ok(());
            };
            let judged = event
                .map_err(|reason| Finding::Unreadable { number, reason })
                .and_then(|event| judge(&coordinator, event, number));
            match judged {
                Ok(event) => self.apply(coordinator, event)?,
                Err(finding) => self.findings.push(finding),
            }
        }
        Ok(())
    }

    fn apply(&mut self, coordinator: Coordinator, event: Event) -> Result<(), AuditError> {
        self.events += 1;
        self.signatures += event.kind.signatures();
        let claimed = match &event.kind {
            EventKind::UpdateTaken(claim) => Some(claim.claimed().vector),
            _ => None,
        };
        let (coordinator, effects) = coordinator.apply(event);
        self.coordinator = Some(coordinator);
        for effect in effects {
            match effect {
                Effect::Send(..) => {}
                Effect::Accumulate(member, group) => {
                    if let Some(claimed) = &claimed {
                        let of = (member, group);
                        self.uploads.add(of, claimed, &mut self.findings)?;
                    }
                }
                Effect::Blame(fault) => self.faults.push(fault.to_string()),
                Effect::Unmask(completed) => self.end = Some(Ok(completed)),
                Effect::Fail(reason) => self.end = Some(Err(reason)),
            }
        }
        Ok(())
    }
}

/// The event, where the coordinator makes the same of its message again.
pub(super) fn judge(
    coordinator: &Coordinator,
    event: Event,
    number: usize,
) -> Result<Event, Finding> {
    match coordinator.decide(event.at, coordinator.input_of(&event)) {
        Ok(again) if again == event => Ok(event),
        Ok(_) => Err(Finding::Altered { number }),
        Err(reason) => Err(Finding::Refused { number, reason }),
    }
}

/// What the outcome of a replay is compared with.
struct Outcome<'a> {
    directory: &'a RunDirectory,
    kept: &'a KeptRun,
    open: &'a Open,
    /// The part of the adapter that the round trained.
    part: &'a fedlora_adapter::Layout,
    result: &'a RoundResult,
}

impl Outcome<'_> {
    fn compare(
        &self,
        completed: Completed,
        uploads: KeptUploads,
        report: &mut ReplayReport,
    ) -> Result<(), AuditError> {
        let Completed {
            groups,
            rule,
            survivors,
            dropped,
            transcript,
        } = completed;
        let weight: u64 = groups.iter().map(|group| group.parts.weight).sum();
        let result = self.result;
        report.survivors.clone_from(&survivors);
        report.participation = Comparison::of(
            (&survivors, &dropped, weight)
                == (&result.survivors, &result.dropped, result.total_weight),
        );
        report.transcript = Comparison::of(transcript == result.transcript);
        let sum = match uploads.unmask(groups, rule, &mut report.findings) {
            Ok(sum) => sum,
            Err(why) => {
                (report.sum, report.losses, report.adapter) = (why, why, why);
                return Ok(());
            }
        };
        report.sum = Comparison::of(sum.digest() == result.sum);
        let open = self.open;
        match sum.decode(open.bits, open.clip, &open.digest()) {
            Ok((mean, _)) => report.losses = Comparison::of(same_losses(&mean, result)),
            Err(error) => {
                report.findings.push(Finding::Sum(error.into()));
                return Ok(());
            }
        }
        self.compare_adapter(&sum, report)
    }

    fn compare_adapter(&self, sum: &RoundSum, report: &mut ReplayReport) -> Result<(), AuditError> {
        let result = self.result;
        let rollback = &self.kept.plan.rollback;
        let taken_back = rollback.takes_back(result.round, result.survivors.len(), result.votes);
        let former = match taken_back {
            true => {
                let before = RoundNumber(result.round.0.saturating_sub(1));
                self.state_before(before)?.map(Some)
            }
            false => Ok(None),
        };
        let (state, former) = match (self.state_before(result.round)?, former) {
            (Ok(state), Ok(former)) => (state, former),
            (Err(missing), _) | (_, Err(missing)) => {
                report.adapter = missing;
                return Ok(());
            }
        };
        if state.adapter.digest() != self.open.adapter {
            report.findings.push(Finding::AdapterBefore);
        }
        // The first adapter is checked by the plan's seed.
        if let (Some(former), Some(round)) = (&former, result.round.0.checked_sub(2))
            && round > 0
            && former.adapter.digest() != self.kept.result(RoundNumber(round))?.adapter
        {
            report.findings.push(Finding::AdapterBefore);
        }
        match publish::apply(&state, || Ok(former), rollback, self.part, self.open, sum) {
            Ok(applied) => {
                let next = applied.state.adapter.digest();
                report.adapter = Comparison::of(next == result.adapter);
                self.compare_state(&applied.state.optimizer, report)?;
            }
            Err(error) => report.findings.push(Finding::Sum(error)),
        }
        Ok(())
    }

    /// Adapter and optimizer before `round`, or which of the two is not kept.
    fn state_before(
        &self,
        round: RoundNumber,
    ) -> Result<Result<GlobalState, Comparison>, AuditError> {
        let Some(adapter) = self.kept.adapter_before(self.directory, round)? else {
            return Ok(Err(Comparison::AdapterNotKept));
        };
        let optimizer = self.kept.optimizer_before(self.directory, round)?;
        Ok(optimizer
            .map(|optimizer| GlobalState {
                adapter: Arc::new(adapter),
                optimizer,
            })
            .ok_or(Comparison::StateNotKept))
    }

    /// The state after the round, from which the next one's replay starts. Once all rounds up to
    /// one are replayed, each has started from what the one before gave.
    fn compare_state(
        &self,
        after: &ServerOptimizer,
        report: &mut ReplayReport,
    ) -> Result<(), AuditError> {
        let path = self.directory.server_state(self.result.round.0);
        let of = StateOf::after(self.result, self.open.plan);
        if !after
            .is_kept_as(&path, &of)
            .map_err(|error| unreadable(&path, error))?
        {
            report.findings.push(Finding::StateAfter);
        }
        Ok(())
    }
}

/// Whether a mean says the same of losses, clips and votes as the result, bit for bit.
fn same_losses(mean: &WeightedMean, result: &RoundResult) -> bool {
    let bits = |loss: Option<f32>| loss.map(f32::to_bits);
    (bits(mean.train_loss), bits(mean.eval_loss))
        == (bits(result.train_loss), bits(result.eval_loss))
        && (mean.clipped, mean.votes) == (result.clipped, result.votes)
}
