//! The rounds of a run, once the roster is pinned: which round is current, what is trained for
//! it, and the chain of results.

use std::sync::Arc;

use rand::CryptoRng;

use fedlora_adapter::{Adapter, AdapterError, Factors};
use fedlora_common::digest::Digest;

use crate::fixed::{EncodedUpdate, FixedError};
use crate::ids::{Attempt, RoundNumber};
use crate::plan::{ClipSchedule, RollbackPlan, Roster, RunEnd, SignedPlan};
use crate::round::participant::{
    AllowedStep, Expectation, LedgerError, Refusal, RoundContext, RoundLedger, check_result,
};
use crate::wire::Unverified;
use crate::wire::messages::{Open, RoundMessage, RoundResult, ToAggregator, ToMember};

use super::effect::{DoneRound, LeaveReason, MemberEffect, RoundShare, RoundTask, RunOutcome};
use super::error::MemberError;
use super::member_round::{MemberRound, RoundAnswer};
use super::pin::RosterPin;
use super::planned::{PlannedRun, accepted};
use super::run_result::RunResult;
use super::settings::MemberSettings;

/// The run after an input, with the effects; or its early end.
type PinnedStep = Result<(PinnedRun, Vec<MemberEffect>), MemberError>;

/// A run with its members pinned.
pub(super) struct PinnedRun {
    run: PlannedRun,
    context: Arc<RoundContext>,
    /// What the next result must be chained to.
    chain: Digest,
    clips: ClipSchedule,
    /// The round whose adapter this member holds; 0 for the first adapter.
    held: RoundNumber,
    /// The adapter of the round before the held one, where this member held it.
    former: Option<Adapter>,
    /// What the results since the held adapter may have changed.
    allowed: AllowedStep,
    /// The factors that the newest result may have changed, and the largest norm of that step. None
    /// before the first.
    step: Option<(Factors, f64)>,
    /// The newest round with a checked result; 0 before the first.
    last_round: RoundNumber,
    result: RunResult,
    took_part: u32,
    /// What became of the rounds since the last task.
    since: Vec<RoundShare>,
    training: Option<TrainingTask>,
    activity: Activity,
}

/// What the shell trains, or has trained.
struct TrainingTask {
    round: RoundNumber,
    adapter: Digest,
    done: bool,
}

/// What the member currently does.
enum Activity {
    /// Waits for the next round.
    Idle,
    /// Takes part in the current round.
    Round(Box<MemberRound>),
    /// Holds a checked result and fetches its adapter.
    Fetch(Box<RoundResult>),
    /// The run is over, and this member fetches its result, which it missed.
    FetchBest,
}

impl PinnedRun {
    pub(super) fn new(run: PlannedRun, context: Arc<RoundContext>) -> Self {
        let chain = RoundResult::chain_start(
            run.id,
            &context.plan,
            &context.roster.digest(),
            &run.adapter.digest(),
        );
        Self {
            clips: ClipSchedule::new(&run.plan.aggregation),
            former: None,
            allowed: AllowedStep::default(),
            step: None,
            result: RunResult::new(&run.plan.stopping, &run.adapter),
            held: RoundNumber(0),
            run,
            context,
            chain,
            last_round: RoundNumber(0),
            took_part: 0,
            since: Vec::new(),
            training: None,
            activity: Activity::Idle,
        }
    }

    /// The plan again, after a broken connection.
    pub(super) fn plan(self, signed: SignedPlan, settings: &MemberSettings) -> PinnedStep {
        let effects = self.run.plan(signed, settings)?;
        Ok((self, effects))
    }

    /// The roster again, after a broken connection.
    pub(super) fn roster(self, roster: &Roster, pin: &mut dyn RosterPin) -> PinnedStep {
        self.run.check_size(roster)?;
        pin.pin(roster)?;
        let round = match &self.activity {
            Activity::Round(round) => Some(round.digest().into()),
            Activity::Idle | Activity::Fetch(_) | Activity::FetchBest => None,
        };
        Ok((self, vec![accepted(roster, round)]))
    }

    /// The aggregator says that all rounds are done. The run ends with its outcome, once this member
    /// holds the adapter that is its result.
    pub(super) fn finished(mut self) -> PinnedStep {
        if self.last_round == RoundNumber(0) {
            return Err(MemberError::NoResult);
        }
        if !self.is_over() {
            return Err(MemberError::EndedEarly {
                done: self.last_round.0,
                planned: self.run.plan.rounds,
            });
        }
        let held = match self.result.not_newest() {
            None => Ok(self.run.adapter.clone()),
            Some(best) => best.adapter.clone().ok_or(best.digest),
        };
        let effect = match held {
            Ok(adapter) => self.end(adapter),
            Err(adapter) => {
                self.activity = Activity::FetchBest;
                MemberEffect::Fetch {
                    adapter,
                    values: self.run.adapter.values().len(),
                }
            }
        };
        Ok((self, vec![effect]))
    }

    /// Whether no further round opens: the plan's rounds are done, or its patience is at its end.
    fn is_over(&self) -> bool {
        self.last_round.0 >= self.run.plan.rounds || self.result.has_stopped()
    }

    /// The run's end with its result.
    fn end(&self, adapter: Adapter) -> MemberEffect {
        MemberEffect::End(Ok(Box::new(RunOutcome {
            run: self.run.id,
            plan: self.run.plan.clone(),
            adapter,
            end: RunEnd {
                planned: self.run.plan.rounds,
                rounds: self.last_round.0,
                best: self.result.round(),
            },
            took_part: self.took_part,
            newest: self.run.adapter.clone(),
            since: self.since.clone(),
        })))
    }

    /// A message that belongs to a round.
    pub(super) fn message(
        mut self,
        message: ToMember,
        settings: &MemberSettings,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> PinnedStep {
        let effects = match message {
            ToMember::Open(open) if !self.is_current(&open) => {
                self.open(open, ledger, rng).map_err(MemberError::from)?
            }
            ToMember::Result(result) => self.result(result, settings)?,
            ToMember::Abandoned {
                round,
                attempt,
                reason,
            } => {
                // The trained update stays: where no share was revealed, the next attempt masks
                // it anew.
                self.activity = Activity::Idle;
                vec![MemberEffect::Abandoned {
                    round,
                    attempt,
                    reason,
                }]
            }
            message => self.round_message(message, ledger, rng),
        };
        Ok((self, effects))
    }

    /// The shell has trained for `round`.
    pub(super) fn trained(mut self, round: RoundNumber) -> (Self, Vec<MemberEffect>) {
        if let Some(training) = &mut self.training
            && training.round == round
        {
            training.done = true;
        }
        let effects = self.encode();
        (self, effects)
    }

    /// The shell has encoded the update, or could not.
    pub(super) fn encoded(
        mut self,
        number: RoundNumber,
        attempt: Attempt,
        encoded: Result<EncodedUpdate, FixedError>,
    ) -> (Self, Vec<MemberEffect>) {
        let round = match self.activity {
            Activity::Round(round)
                if round.is(number, attempt) && round.wants_update().is_some() =>
            {
                round
            }
            other => {
                self.activity = other;
                return (self, Vec::new());
            }
        };
        let (activity, effects) = match encoded {
            Ok(update) => {
                let (round, upload) = round.mask(update);
                let effects = upload.map(MemberEffect::Upload).into_iter().collect();
                (Activity::Round(Box::new(round)), effects)
            }
            Err(error) => {
                let reason = LeaveReason::Encoding(error);
                (Activity::Idle, leave(number, round.digest(), reason))
            }
        };
        self.activity = activity;
        (self, effects)
    }

    /// The shell has fetched the values of the result's adapter, or they are superseded.
    pub(super) fn fetched(mut self, values: Option<Vec<f32>>) -> PinnedStep {
        let result = match self.activity {
            Activity::Fetch(result) => result,
            Activity::FetchBest => return self.fetched_best(values),
            other => {
                self.activity = other;
                return Ok((self, Vec::new()));
            }
        };
        self.activity = Activity::Idle;
        self.training = None;
        let mut effects = Vec::new();
        let held = values.is_some().then_some(result.adapter);
        if let Some(values) = values {
            self.check_step_back(&result)?;
            let adapter = self.check_fetched(values, &result.adapter, &self.allowed)?;
            self.allowed = AllowedStep::default();
            let before = std::mem::replace(&mut self.run.adapter, adapter);
            self.former = self.is_next(&result).then_some(before);
            self.held = result.round;
            effects.push(MemberEffect::Send(ToAggregator::Fetched {
                adapter: result.adapter,
            }));
        }
        effects.push(MemberEffect::RoundDone(DoneRound {
            round: result.round,
            survivors: result.survivors.len(),
            took_part: result.survivors.contains(&self.context.me),
            taken_back: self.takes_back(&result),
            held,
        }));
        Ok((self, effects))
    }

    /// Whether a result is of the round after the held adapter's.
    fn is_next(&self, result: &RoundResult) -> bool {
        result.round.0 == self.held.0 + 1
    }

    /// Checks that a result which takes the step before back names the adapter which that leads to,
    /// where this member held both adapters.
    fn check_step_back(&self, result: &RoundResult) -> Result<(), MemberError> {
        let former = self.former.as_ref().filter(|_| self.is_next(result));
        let Some(former) = former.filter(|_| self.takes_back(result)) else {
            return Ok(());
        };
        let back = self.run.adapter.moved_towards(former, RollbackPlan::PART)?;
        if back.digest() != result.adapter {
            return Err(MemberError::Refusal(Refusal::StepBack));
        }
        Ok(())
    }

    /// The shell has fetched the run's result, or the aggregator does not hold it.
    fn fetched_best(mut self, values: Option<Vec<f32>>) -> PinnedStep {
        let missing = MemberError::ResultMissing {
            round: self.result.round(),
        };
        let (Some(values), Some(best)) = (values, self.result.not_newest()) else {
            return Err(missing);
        };
        // As far from the held adapter as the steps between the two may have led.
        let adapter = self.check_fetched(values, &best.digest, &best.allowed)?;
        self.activity = Activity::Idle;
        let end = self.end(adapter);
        Ok((self, vec![end]))
    }

    /// Checks fetched values: that they are the adapter with this digest, and no further from the
    /// held one than `allowed`.
    fn check_fetched(
        &self,
        values: Vec<f32>,
        expected: &Digest,
        allowed: &AllowedStep,
    ) -> Result<Adapter, MemberError> {
        let held = &self.run.adapter;
        let adapter = Adapter::new(held.config().clone(), held.layout().clone(), values)?;
        let (got, expected) = (adapter.digest(), *expected);
        if got != expected {
            return Err(MemberError::OtherAdapter { got, expected });
        }
        allowed
            .check(held, &adapter)
            .map_err(MemberError::Refusal)?;
        Ok(adapter)
    }

    fn is_current(&self, open: &Open) -> bool {
        matches!(&self.activity, Activity::Round(round) if round.opened() == open)
    }

    /// M0 of a round or attempt that this member has not opened.
    fn open(
        &mut self,
        open: Open,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<MemberEffect>, AdapterError> {
        let (round, attempt, digest) = (open.round, open.attempt, open.digest());
        if self.result.has_stopped() {
            let last = self.last_round;
            return Ok(self.leave(round, digest, Refusal::Over { last }));
        }
        let (plan, adapter) = (&self.run.plan, &self.run.adapter);
        let factors = plan.adapter.factors.factors_in(round);
        let part = adapter.layout().subset(factors)?;
        let expected = Expectation {
            round: RoundNumber(self.last_round.0 + 1),
            previous: self.chain,
            adapter: adapter.digest(),
            layout: part.digest(),
            factors,
            clip: self.clips.clip(factors),
            bits: plan.aggregation.bits,
        };
        match MemberRound::open(&self.context, open, &expected, ledger, rng) {
            Ok((current, keys)) => {
                self.activity = Activity::Round(Box::new(current));
                let mut effects = vec![MemberEffect::Opened {
                    round,
                    attempt,
                    open: digest,
                }];
                let task = RoundTask {
                    round,
                    factors,
                    clip: expected.clip,
                    part,
                    adapter: adapter.clone(),
                    since: Vec::new(),
                };
                effects.extend(self.train(task, expected.adapter));
                effects.push(MemberEffect::Send(keys));
                Ok(effects)
            }
            Err(refusal) => Ok(self.leave(round, digest, refusal)),
        }
    }

    /// Asks for training, unless the shell trains for this round already or is done with it.
    fn train(&mut self, task: RoundTask, adapter: Digest) -> Option<MemberEffect> {
        if let Some(training) = &self.training
            && training.round == task.round
            && training.adapter == adapter
        {
            return None;
        }
        self.training = Some(TrainingTask {
            round: task.round,
            adapter,
            done: false,
        });
        let since = std::mem::take(&mut self.since);
        Some(MemberEffect::Train(Box::new(RoundTask { since, ..task })))
    }

    /// M1 to M5 of the others, for the current round.
    fn round_message(
        &mut self,
        message: ToMember,
        ledger: &mut dyn RoundLedger,
        rng: &mut impl CryptoRng,
    ) -> Vec<MemberEffect> {
        let round = match std::mem::replace(&mut self.activity, Activity::Idle) {
            Activity::Round(round) => round,
            other => {
                self.activity = other;
                return Vec::new();
            }
        };
        let (number, digest) = (round.number(), round.digest());
        match round.message(message, ledger, rng) {
            Ok((round, answer)) => {
                self.activity = Activity::Round(Box::new(round));
                match answer {
                    RoundAnswer::Nothing => Vec::new(),
                    RoundAnswer::Send(message) => vec![MemberEffect::Send(message)],
                    RoundAnswer::Upload(upload) => vec![MemberEffect::Upload(upload)],
                    RoundAnswer::WantsUpdate => self.encode(),
                }
            }
            Err(refusal) => self.leave(number, digest, refusal),
        }
    }

    /// Asks for the encoded update, once shares are exchanged and training is done.
    fn encode(&self) -> Vec<MemberEffect> {
        match (&self.activity, &self.training) {
            (Activity::Round(round), Some(training))
                if training.done && training.round == round.number() =>
            {
                let encode = round.wants_update().map(|encoding| MemberEffect::Encode {
                    round: round.number(),
                    attempt: round.opened().attempt,
                    encoding,
                });
                encode.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Leaves a round: its keys are wiped, and the others continue at once. What concerns
    /// the whole run ends the run for this member.
    fn leave(&mut self, round: RoundNumber, open: Digest, refusal: Refusal) -> Vec<MemberEffect> {
        self.activity = Activity::Idle;
        let mut effects = leave(round, open, refusal.clone().into());
        if ends_the_run(&refusal) {
            effects.push(MemberEffect::End(Err(MemberError::Refusal(refusal))));
        }
        effects
    }

    /// M6: checks the result, and asks for its adapter.
    fn result(
        &mut self,
        result: Unverified<RoundResult>,
        settings: &MemberSettings,
    ) -> Result<Vec<MemberEffect>, MemberError> {
        // Sent again after a broken connection.
        if result.claimed().round <= self.last_round {
            return Ok(match &self.activity {
                Activity::Fetch(checked) => vec![self.fetch(checked)],
                _ => Vec::new(),
            });
        }
        if self.is_over() {
            let last = self.last_round;
            return Err(MemberError::Refusal(Refusal::Over { last }));
        }
        // What a receipt could not prove is no result.
        let claimed = result.claimed();
        if claimed.run != self.run.id {
            return Err(MemberError::Refusal(Refusal::Result { what: "run" }));
        }
        let losses = [claimed.train_loss, claimed.eval_loss];
        if losses.into_iter().flatten().any(|loss| !loss.is_finite()) {
            return Err(MemberError::Refusal(Refusal::Result { what: "loss" }));
        }
        let aggregator = &settings.aggregator;
        let kept = MemberEffect::KeepResult(Box::new(result.clone()));
        let checked = match std::mem::replace(&mut self.activity, Activity::Idle) {
            Activity::Round(round) => round.result(result, aggregator, &self.chain),
            _ => check_result(result, aggregator, &self.chain),
        };
        let result = checked.map_err(MemberError::Refusal)?;
        if result.round.0 != self.last_round.0 + 1 {
            return Err(MemberError::Refusal(Refusal::Result { what: "round" }));
        }
        let plan = &self.run.plan;
        let factors = plan.adapter.factors.factors_in(result.round);
        let largest = f64::from(plan.largest_step()) * f64::from(self.clips.clip(factors));
        let survivors = result.survivors.len();
        let taken_back = self.takes_back(&result);
        let step = match self.step.filter(|_| taken_back) {
            // A part of the step before, in the factors that it changed.
            Some(before) => before,
            None => (factors, largest),
        };
        self.step = Some(step);
        self.allowed.add(step.0, step.1);
        let before = (self.held == self.last_round).then_some(&self.run.adapter);
        self.result.advance(&result, before, step, taken_back);
        self.clips.advance(factors, survivors, result.clipped);
        self.chain = result.digest();
        self.last_round = result.round;
        let took_part = result.survivors.contains(&self.context.me);
        self.took_part += u32::from(took_part);
        // All others have a weight of 1 at least, whatever a result says that was not seen through.
        let weight = self.context.weight.weight();
        let all = result
            .total_weight
            .max(weight + survivors.saturating_sub(1) as u64);
        self.since.push(RoundShare {
            round: result.round,
            share: took_part.then(|| weight as f64 / all as f64),
            taken_back,
        });
        let effects = vec![kept, self.fetch(&result)];
        self.activity = Activity::Fetch(Box::new(result));
        Ok(effects)
    }

    /// Whether a result takes the step before back.
    fn takes_back(&self, result: &RoundResult) -> bool {
        let rollback = &self.run.plan.rollback;
        rollback.takes_back(result.round, result.survivors.len(), result.votes)
    }

    fn fetch(&self, result: &RoundResult) -> MemberEffect {
        MemberEffect::Fetch {
            adapter: result.adapter,
            values: self.run.adapter.values().len(),
        }
    }
}

fn leave(round: RoundNumber, open: Digest, reason: LeaveReason) -> Vec<MemberEffect> {
    let (open, message) = (open.into(), RoundMessage::Abstain);
    vec![
        MemberEffect::Left { round, reason },
        MemberEffect::Send(ToAggregator::Round { open, message }),
    ]
}

/// Whether a refusal concerns the run as a whole, not the round alone.
fn ends_the_run(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Roster { .. }
            | Refusal::Plan { .. }
            | Refusal::Run
            | Refusal::Suite { .. }
            | Refusal::Threshold { .. }
            | Refusal::Minimum { .. }
            | Refusal::Parameter { .. }
            | Refusal::Round { .. }
            | Refusal::Over { .. }
            | Refusal::Previous { .. }
            | Refusal::Ledger(LedgerError::SecondSum { .. })
            | Refusal::Result { .. }
            | Refusal::ResultSignature
    )
}
