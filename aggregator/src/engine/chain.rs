//! The chain of global adapters: the roster, the newest adapter, the server's optimizer, and the
//! signed results that lead to them. Exists once the cohort is complete.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fedlora_adapter::{Adapter, Factors, Layout, peft};
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::plan::{
    ClipSchedule, FactorSchedule, LossCurve, RollbackPlan, Roster, RosterEntry,
};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{PhaseName, RoundResult, ToMember};
use tracing::error;

use super::context::RunContext;
use super::links::Links;
use super::opening::Standing;
use super::progress::Progress;
use crate::audit::{AuditError, KeptRun};
use crate::blocking;
use crate::optimizer::{ServerOptimizer, StateOf};
use crate::publish::{Applied, GlobalState, PublishError};
use crate::status::RunState;

/// How far the run's rounds have come.
#[derive(Debug)]
pub(super) struct AdapterChain {
    pub(super) roster: Arc<Roster>,
    /// The newest adapter, and the server's optimizer after the newest result.
    state: GlobalState,
    /// The published adapter that the run began from: a member that starts again fetches it once more.
    start: Option<(Digest, Arc<Adapter>)>,
    /// Rounds whose step was scaled down to the plan's largest.
    rounds_scaled: u32,
    /// Rounds that took the step before back.
    rounds_taken_back: u32,
    /// The digest of the newest result, which the next is chained to.
    head: Digest,
    results: Vec<Unverified<RoundResult>>,
    losses: LossCurve,
    /// The adapter that is the run's result where the newest is not; `None` before a loss is told.
    best: Option<BestAdapter>,
    factors: FactorSchedule,
    rollback: RollbackPlan,
    clips: ClipSchedule,
    /// The number of rounds whose sum each member is in.
    rounds_by_member: BTreeMap<MemberName, u32>,
}

/// The adapter with the best loss that results tell. It is on the disk; memory holds it where somebody
/// fetches it.
#[derive(Debug)]
struct BestAdapter {
    round: RoundNumber,
    digest: Digest,
    in_use: Mutex<Weak<Adapter>>,
}

/// The run's result, by the results so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunResult {
    /// The round that its adapter came of; 0 for the first adapter.
    pub(super) round: RoundNumber,
    /// That adapter.
    pub(super) adapter: Digest,
}

impl BestAdapter {
    fn new(round: RoundNumber, digest: Digest) -> Self {
        Self {
            round,
            digest,
            in_use: Mutex::default(),
        }
    }
}

impl AdapterChain {
    /// The chain before its first round.
    pub(super) fn begin(context: &RunContext, roster: Roster, adapter: Adapter) -> Self {
        let adapter = Arc::new(adapter);
        let start = context.setup.plan.start_from;
        Self {
            head: RoundResult::chain_start(
                context.setup.run,
                &context.plan_digest,
                &roster.digest(),
                &adapter.digest(),
            ),
            roster: Arc::new(roster),
            state: GlobalState {
                optimizer: ServerOptimizer::new(context.server, adapter.layout().clone()),
                adapter: Arc::clone(&adapter),
            },
            start: start.map(|digest| (digest, adapter)),
            rounds_scaled: 0,
            rounds_taken_back: 0,
            results: Vec::new(),
            losses: LossCurve::new(&context.setup.plan.stopping),
            best: None,
            factors: context.setup.plan.adapter.factors,
            rollback: context.setup.plan.rollback,
            clips: ClipSchedule::new(&context.setup.plan.aggregation),
            rounds_by_member: BTreeMap::new(),
        }
    }

    /// The chain of a run that is not over, as its record and its adapters have it.
    ///
    /// # Errors
    /// What cannot be read, or is not what the results name.
    pub(super) fn restored(context: &RunContext, kept: KeptRun) -> Result<Self, AuditError> {
        let directory = &context.setup.directory;
        let roster = kept.roster.as_ref().clone();
        let mut chain = Self::begin(context, roster, kept.first.clone());
        for result in kept.results() {
            let body = result.claimed();
            chain.advance(body);
            chain.results.push(result.clone());
        }
        if let Some(best) = chain.losses.best_told() {
            let digest = kept.adapter_after(directory, best)?.digest();
            chain.best = Some(BestAdapter::new(best, digest));
        }
        if chain.newest() > RoundNumber(0) {
            chain.state = kept.state_after(directory, chain.newest())?;
        }
        Ok(chain)
    }

    /// Appends a round's result with the adapter that it names and the optimizer after it.
    pub(super) fn extend(&mut self, applied: Applied, result: Unverified<RoundResult>) {
        let before = (self.newest(), self.digest());
        self.advance(result.claimed());
        // The result tells of the adapter before it.
        if self.losses.best_told() == Some(before.0) {
            self.best = Some(BestAdapter::new(before.0, before.1));
        }
        self.state = applied.state;
        self.rounds_scaled += u32::from(applied.scaled.is_some());
        self.results.push(result);
    }

    /// Moves on by a result: losses, chain, clips, who took part.
    fn advance(&mut self, body: &RoundResult) {
        let survivors = body.survivors.len();
        let taken_back = (self.rollback).takes_back(body.round, survivors, body.votes);
        let told = (&body.survivors[..], body.eval_loss);
        self.losses.advance(body.round, told, taken_back);
        self.rounds_taken_back += u32::from(taken_back);
        self.head = body.digest();
        self.clips
            .advance(self.factors.factors_in(body.round), survivors, body.clipped);
        for member in &body.survivors {
            if let Some(entry) = self.roster.get(*member) {
                *self.rounds_by_member.entry(entry.name.clone()).or_default() += 1;
            }
        }
    }

    /// The newest round with a result; 0 before the first.
    pub(super) fn newest(&self) -> RoundNumber {
        RoundNumber(self.results.len() as u32)
    }

    /// Whether the plan's patience is at its end.
    pub(super) fn has_stopped(&self) -> bool {
        self.losses.has_stopped()
    }

    /// The run's result, if it ended now.
    pub(super) fn result(&self) -> RunResult {
        let round = self.losses.best();
        let adapter = match &self.best {
            Some(best) if round != self.newest() => best.digest,
            _ => self.digest(),
        };
        RunResult { round, adapter }
    }

    /// The first adapter, where it is the run's result and not the newest.
    ///
    /// # Errors
    /// An adapter that does not fit the plan.
    pub(super) fn first_as_result(
        &self,
        context: &RunContext,
    ) -> Result<Option<Arc<Adapter>>, PublishError> {
        let first = self.result().round == RoundNumber(0) && self.newest() > RoundNumber(0);
        first.then(|| self.first(context)).transpose()
    }

    /// The adapter that the run began from: a published one, or the one that the plan's seed gives.
    fn first(&self, context: &RunContext) -> Result<Arc<Adapter>, PublishError> {
        if let Some((_, start)) = &self.start {
            return Ok(Arc::clone(start));
        }
        let plan = &context.setup.plan;
        let (lora, layout) = (plan.adapter.lora.clone(), self.adapter().layout().clone());
        Ok(Arc::new(Adapter::initial(lora, layout, plan.seed())?))
    }

    /// The adapter of an earlier round, whose digest this is; 0 for the first.
    ///
    /// # Errors
    /// What cannot be read, or is not what the round's result names.
    fn earlier(
        &self,
        context: &RunContext,
        round: RoundNumber,
        digest: &Digest,
    ) -> Result<Arc<Adapter>, PublishError> {
        if round == RoundNumber(0) {
            return self.first(context);
        }
        let path = context.setup.directory.adapter(round.0);
        let adapter = peft::load(&path)?;
        if adapter.digest() != *digest {
            return Err(PublishError::OtherAdapter { path });
        }
        Ok(Arc::new(adapter))
    }

    /// The newest global adapter.
    pub(super) fn adapter(&self) -> &Adapter {
        &self.state.adapter
    }

    /// The part of the adapter that a round trains and sums.
    pub(super) fn part(&self, factors: Factors) -> Layout {
        let part = self.adapter().layout().subset(factors);
        part.expect("a layout was checked when its member was ready")
    }

    /// Adapter and optimizer after the newest result.
    pub(super) fn state(&self) -> &GlobalState {
        &self.state
    }

    /// Adapter and optimizer before the newest result, if there is one. Members may vote to go back
    /// there, which is rare: until then they are on the disk alone.
    ///
    /// # Errors
    /// What cannot be read, or is not what the result before names.
    pub(super) fn former(&self, context: &RunContext) -> Result<Option<GlobalState>, PublishError> {
        let layout = self.adapter().layout().clone();
        let optimizer = ServerOptimizer::new(context.server, layout);
        let before = match &self.results[..] {
            [] => return Ok(None),
            [_] => {
                let adapter = self.first(context)?;
                return Ok(Some(GlobalState { adapter, optimizer }));
            }
            [.., before, _] => before.claimed(),
        };
        let adapter = self.earlier(context, before.round, &before.adapter)?;
        let of = StateOf::after(before, context.setup.plan.digest());
        let state = context.setup.directory.server_state(before.round.0);
        let optimizer = optimizer.restored(&state, &of)?;
        Ok(Some(GlobalState { adapter, optimizer }))
    }

    /// The digest of the newest adapter. A result names it: it is not computed again at each fetch
    /// and for each status.
    fn digest(&self) -> Digest {
        match self.results.last() {
            Some(result) => result.claimed().adapter,
            None => self.adapter().digest(),
        }
    }

    /// What M0 of a round that trains `factors` says of the run so far.
    pub(super) fn standing(&self, context: &RunContext, factors: Factors) -> Standing {
        Standing {
            run: context.setup.run,
            plan: context.plan_digest,
            roster: self.roster.digest(),
            previous: self.head,
            adapter: self.adapter().digest(),
            clip: self.clips.clip(factors),
        }
    }

    /// The digest that the next result is chained to.
    pub(super) fn head(&self) -> Digest {
        self.head
    }

    /// The newest adapter, the best, or the one that the run began from, whichever has this digest.
    pub(super) fn fetch(&self, context: &RunContext, digest: &Digest) -> Option<Arc<Adapter>> {
        if self.digest() == *digest {
            return Some(Arc::clone(&self.state.adapter));
        }
        let start = self.start.as_ref().filter(|(start, _)| start == digest);
        if let Some((_, start)) = start {
            return Some(Arc::clone(start));
        }
        let best = self.best.as_ref().filter(|best| best.digest == *digest)?;
        let mut in_use = best.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(adapter) = in_use.upgrade() {
            return Some(adapter);
        }
        let read = blocking::in_place(|| self.earlier(context, best.round, digest));
        let adapter = read
            .inspect_err(|error| error!(%error, "the best adapter so far cannot be given"))
            .ok()?;
        *in_use = Arc::downgrade(&adapter);
        Some(adapter)
    }

    pub(super) fn index_of(&self, member: &MemberName) -> Option<MemberIndex> {
        self.roster.index_of(member)
    }

    pub(super) fn name_of(&self, member: MemberIndex) -> Option<&MemberName> {
        Some(&self.roster.get(member)?.name)
    }

    /// A member's name; its index where the roster has no such member.
    pub(super) fn display(&self, member: MemberIndex) -> String {
        match self.name_of(member) {
            Some(name) => name.to_string(),
            None => member.to_string(),
        }
    }

    /// The names of the members of which `first` is true, and of the others.
    pub(super) fn split(
        &self,
        first: impl Fn(MemberIndex) -> bool,
    ) -> (Vec<MemberName>, Vec<MemberName>) {
        let names = self.roster.indices().zip(self.roster.entries());
        let (ones, others): (Vec<_>, Vec<_>) = names.partition(|(index, _)| first(*index));
        let name = |(_, entry): (MemberIndex, &RosterEntry)| entry.name.clone();
        (
            ones.into_iter().map(name).collect(),
            others.into_iter().map(name).collect(),
        )
    }

    /// Sends a message to every member of the run.
    pub(super) fn broadcast(&self, links: &Links, message: &ToMember) {
        for entry in self.roster.entries() {
            links.send(&entry.name, message.clone());
        }
    }

    /// Sends a message of the rounds to every member that can follow it.
    pub(super) fn tell(&self, links: &Links, message: &ToMember) {
        for entry in self.roster.entries() {
            links.tell(&entry.name, message.clone());
        }
    }

    /// Sends the roster and all results so far: the member follows the chain from where it
    /// stopped.
    pub(super) fn bring_up_to_date(&self, links: &Links, member: &MemberName) {
        self.show_roster(links, member);
        self.show_results(links, member);
    }

    /// Sends the roster, which the member answers once it has accepted it.
    pub(super) fn show_roster(&self, links: &Links, member: &MemberName) {
        links.send(member, ToMember::Roster(self.roster.as_ref().clone()));
    }

    /// Sends all results so far.
    pub(super) fn show_results(&self, links: &Links, member: &MemberName) {
        for result in &self.results {
            links.send(member, ToMember::Result(result.clone()));
        }
    }

    /// The status's part.
    pub(super) fn progress(
        &self,
        state: RunState,
        failure: Option<String>,
        phase: Option<PhaseName>,
    ) -> Progress<'_> {
        let rounds = |name| self.rounds_by_member.get(name).copied().unwrap_or(0);
        Progress {
            state,
            failure,
            phase,
            rounds_done: self.results.len() as u32,
            rounds_scaled: self.rounds_scaled,
            rounds_taken_back: self.rounds_taken_back,
            members: self
                .roster
                .entries()
                .iter()
                .map(|entry| (Cow::Borrowed(&entry.name), rounds(&entry.name)))
                .collect(),
            attempt: None,
            waiting: None,
            differing: BTreeMap::new(),
            pooled_loss: self
                .results
                .last()
                .and_then(|last| last.claimed().eval_loss),
            adapter: Some(self.digest()),
            result: (!self.results.is_empty()).then(|| self.result().round),
            stopped: self.has_stopped(),
        }
    }
}
