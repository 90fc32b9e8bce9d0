//! What a record says of the whole run, read back and checked: the plan is signed, the first
//! adapter follows from it or is the one that it names, and the results are a chain of signatures.

use std::sync::Arc;

use fedlora_adapter::{Adapter, peft};
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::{RoundNumber, RunId};
use fedlora_protocol::plan::{ClipSchedule, Roster, RunPlan, ServerSettings};
use fedlora_protocol::secagg::CohortPolicy;
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::RoundResult;

use super::folder::RecordFolder;
use super::record::KeptPlan;
use super::report::Finding;
use super::{AuditError, read, read_json};
use crate::engine::Standing;
use crate::optimizer::{ServerOptimizer, StateError, StateOf};
use crate::publish::GlobalState;
use crate::run_directory::RunDirectory;

/// A run as its record has it. The signature of its plan is verified.
#[derive(Debug)]
pub(crate) struct KeptRun {
    pub(crate) run: RunId,
    pub(crate) plan: RunPlan,
    pub(crate) policy: CohortPolicy,
    server: ServerSettings,
    pub(crate) aggregator: IdentityPublic,
    pub(crate) roster: Arc<Roster>,
    /// The adapter that the first round starts from.
    pub(crate) first: Adapter,
    results: Vec<Unverified<RoundResult>>,
}

impl KeptRun {
    pub(crate) fn read(
        directory: &RunDirectory,
        record: &RecordFolder,
    ) -> Result<Self, AuditError> {
        let KeptPlan { aggregator, plan } = read_json(&record.plan())?;
        let (run, plan) = plan.verify(&aggregator)?;
        let roster: Roster = read_json(&directory.roster())?;
        if roster.len() != plan.members {
            return Err(AuditError::Members {
                found: roster.len(),
                planned: plan.members,
            });
        }
        let first = record.first_adapter();
        if !first.exists() {
            return Err(AuditError::NotKept { path: first });
        }
        let kept = peft::load(&first)?;
        if plan.start_from.is_some_and(|start| start != kept.digest()) {
            return Err(AuditError::OtherAdapter { path: first });
        }
        let path = directory.results();
        let text = match read(&path) {
            Err(AuditError::NotKept { .. }) => Vec::new(),
            text => text?,
        };
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let results = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
        Ok(Self {
            run,
            policy: plan.policy()?,
            server: plan.server_settings()?,
            aggregator,
            roster: Arc::new(roster),
            first: kept,
            results: results.map_err(|source| AuditError::Json { path, source })?,
            plan,
        })
    }

    /// The result of a round, as it is claimed.
    pub(super) fn result(&self, round: RoundNumber) -> Result<&RoundResult, AuditError> {
        let place = (round.0 as usize).checked_sub(1);
        let result = place.and_then(|place| self.results.get(place));
        let result = result.ok_or(AuditError::NoResult { round })?;
        Ok(result.claimed())
    }

    /// The global adapter before `round`, where it is there.
    pub(super) fn adapter_before(
        &self,
        directory: &RunDirectory,
        round: RoundNumber,
    ) -> Result<Option<Adapter>, AuditError> {
        if round.0 <= 1 {
            return Ok(Some(self.first.clone()));
        }
        let path = directory.adapter(round.0 - 1);
        let there = path.exists().then(|| peft::load(&path));
        Ok(there.transpose()?)
    }

    /// The server's optimizer before `round`, where its state is there.
    pub(super) fn optimizer_before(
        &self,
        directory: &RunDirectory,
        round: RoundNumber,
    ) -> Result<Option<ServerOptimizer>, AuditError> {
        let first = ServerOptimizer::new(self.server, self.first.layout().clone());
        if round.0 <= 1 {
            return Ok(Some(first));
        }
        let before = RoundNumber(round.0 - 1);
        let of = StateOf::after(self.result(before)?, self.plan.digest());
        match first.restored(&directory.server_state(before.0), &of) {
            Ok(restored) => Ok(Some(restored)),
            Err(StateError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All results, in order, as they are claimed.
    pub(crate) fn results(&self) -> &[Unverified<RoundResult>] {
        &self.results
    }

    /// The global adapter after `round`, which is the one that the round's result names; 0 for the
    /// first adapter.
    pub(crate) fn adapter_after(
        &self,
        directory: &RunDirectory,
        round: RoundNumber,
    ) -> Result<Adapter, AuditError> {
        let found = self.adapter_before(directory, RoundNumber(round.0 + 1))?;
        let path = directory.adapter(round.0);
        let adapter = found.ok_or_else(|| AuditError::NotKept { path: path.clone() })?;
        if round.0 > 0 && adapter.digest() != self.result(round)?.adapter {
            return Err(AuditError::OtherAdapter { path });
        }
        Ok(adapter)
    }

    /// Adapter and optimizer after `round`.
    pub(crate) fn state_after(
        &self,
        directory: &RunDirectory,
        round: RoundNumber,
    ) -> Result<GlobalState, AuditError> {
        let optimizer = self.optimizer_before(directory, RoundNumber(round.0 + 1))?;
        let path = directory.server_state(round.0);
        Ok(GlobalState {
            adapter: Arc::new(self.adapter_after(directory, round)?),
            optimizer: optimizer.ok_or(AuditError::NotKept { path })?,
        })
    }

    /// How far the run had come before `round`, by the results up to its own, each of which is
    /// checked: signed, of this run, in order. What is wrong goes to `findings`.
    pub(super) fn standing_before(
        &self,
        round: RoundNumber,
        findings: &mut Vec<Finding>,
    ) -> Result<Standing, AuditError> {
        let planned = &self.plan.adapter;
        let layout = self.first.layout().clone();
        let first = match self.plan.start_from {
            Some(start) => start,
            None => Adapter::initial(planned.lora.clone(), layout, self.plan.seed())?.digest(),
        };
        if first != self.first.digest() {
            findings.push(Finding::FirstAdapter);
        }
        let (plan, roster) = (self.plan.digest(), self.roster.digest());
        let mut clips = ClipSchedule::new(&self.plan.aggregation);
        let mut standing = Standing {
            run: self.run,
            plan,
            roster,
            previous: RoundResult::chain_start(self.run, &plan, &roster, &first),
            adapter: first,
            clip: clips.clip(planned.factors.factors_in(RoundNumber(1))),
        };
        for (number, result) in (1..=round.0).map(RoundNumber).zip(&self.results) {
            self.check(number, result, &standing.previous, findings);
            if number == round {
                break;
            }
            let body = result.claimed();
            let factors = planned.factors.factors_in(number);
            clips.advance(factors, body.survivors.len(), body.clipped);
            let next = planned.factors.factors_in(RoundNumber(number.0 + 1));
            standing = Standing {
                previous: body.digest(),
                adapter: body.adapter,
                clip: clips.clip(next),
                ..standing
            };
        }
        Ok(standing)
    }

    fn check(
        &self,
        number: RoundNumber,
        result: &Unverified<RoundResult>,
        previous: &Digest,
        findings: &mut Vec<Finding>,
    ) {
        let body = result.claimed();
        if result
            .clone()
            .verify(&self.aggregator, &body.previous)
            .is_err()
        {
            findings.push(Finding::ResultSignature(number));
        }
        if (body.run, body.round, &body.previous) != (self.run, number, previous) {
            findings.push(Finding::Chain(number));
        }
    }
}
