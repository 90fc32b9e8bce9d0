//! One attempt at a round: inputs in, effects carried out, until it is done or has failed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Layout;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::AUXILIARY_LANES;
use fedlora_protocol::ids::{Attempt, MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::round::coordinator::{
    Completed, Coordinator, Effect, Event, Input, Reject, RoundSetup,
};
use fedlora_protocol::secagg::{RunningSum, pack};
use fedlora_protocol::wire::messages::{
    Open, PhaseName, RoundFailure, SUITE, ToAggregator, ToMember,
};
use tracing::{info, warn};

use super::chain::AdapterChain;
use super::context::{RunContext, TICK};
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use super::messages::{RunEvent, ToEngine};
use super::refusal::{MemberRefusal, UploadRefusal};
use super::uploads::{clear_uploads, upload_path};
use crate::publish::{self, Participation};
use crate::status::RunState;

/// How an attempt at a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoundOutcome {
    /// Its adapter is published; the chain holds it.
    Done,
    /// It came to nothing; the chain is as it was.
    Failed(RoundFailure),
}

/// What an attempt leaves to the run.
#[derive(Debug)]
pub(super) struct ClosedRound {
    pub(super) context: RunContext,
    pub(super) chain: AdapterChain,
    pub(super) outcome: RoundOutcome,
}

/// Runs one attempt at a round to its end.
///
/// # Errors
/// What ends the run with it: no round can follow.
pub(super) async fn run_round(
    context: RunContext,
    chain: AdapterChain,
    round: RoundNumber,
    attempt: Attempt,
) -> Result<ClosedRound, Box<Farewell>> {
    let (current, effects) = CurrentRound::open(context, chain, round, attempt);
    let mut step = current.carry_out(effects).await?;
    let mut tick = tokio::time::interval(TICK);
    let closed = loop {
        let mut current = match step {
            Step::Open(current) => current,
            Step::Closed(closed) => break closed,
        };
        step = tokio::select! {
            message = current.context.inbox.recv() => match message {
                Some(message) => current.handle(message).await?,
                None => {
                    let CurrentRound { context, chain, .. } = current;
                    return Err(fail(context, chain, RunFailure::Stopped));
                }
            },
            _ = tick.tick() => current.pass_time().await?,
        };
    };
    clear_uploads(&closed.context.setup.directory);
    if let RoundOutcome::Failed(reason) = closed.outcome {
        warn!(%round, %attempt, %reason, "the round failed");
        closed.context.watch(RunEvent::RoundFailed {
            round,
            attempt,
            reason,
        });
        closed.context.links.broadcast(&ToMember::Abandoned {
            round,
            attempt,
            reason,
        });
    }
    Ok(closed)
}

/// An attempt that is under way.
#[derive(Debug)]
struct CurrentRound {
    context: RunContext,
    chain: AdapterChain,
    coordinator: Coordinator,
    /// The part of the adapter that this round trains.
    part: Layout,
    sum: RunningSum,
    opened: Timestamp,
}

/// What carrying out an event leads to.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and each is consumed at once"
)]
enum Step {
    /// The round continues.
    Open(CurrentRound),
    /// The round has ended.
    Closed(ClosedRound),
}

impl CurrentRound {
    /// Opens an attempt: M0 to every member is among the effects.
    fn open(
        context: RunContext,
        chain: AdapterChain,
        round: RoundNumber,
        attempt: Attempt,
    ) -> (Self, Vec<Effect>) {
        let plan = &context.setup.plan;
        let factors = plan.adapter.factors.factors_in(round);
        let part = chain
            .adapter()
            .layout()
            .subset(factors)
            .expect("the adapter's layout holds both factors");
        let open = Open {
            suite: SUITE,
            run: context.setup.run,
            round,
            attempt,
            roster: chain.roster.digest(),
            adapter: chain.adapter().digest(),
            plan: context.plan_digest,
            layout: part.digest(),
            factors,
            clip: plan.aggregation.clip,
            max_weight: plan.aggregation.max_weight,
            bits: plan.aggregation.bits,
            threshold: context.policy.threshold() as u16,
            minimum: context.policy.minimum() as u16,
        };
        let setup = Arc::new(RoundSetup::new(
            open,
            Arc::clone(&chain.roster),
            context.policy,
            plan.timeouts.clone(),
        ));
        info!(run = %context.setup.run, %round, %attempt, "the round opens");
        let opened = context.now();
        let (coordinator, effects) = Coordinator::open(setup, opened);
        let lanes = part.len() + AUXILIARY_LANES;
        let current = Self {
            sum: RunningSum::new(plan.aggregation.bits, lanes),
            context,
            chain,
            coordinator,
            part,
            opened,
        };
        current
            .context
            .watch(RunEvent::RoundOpened { round, attempt });
        current.write_status();
        (current, effects)
    }

    /// Deals with one message from a session.
    async fn handle(mut self, message: ToEngine) -> Result<Step, Box<Farewell>> {
        match message {
            ToEngine::Connected {
                member,
                session,
                outbox,
            } => self.context.connect(member, session, outbox),
            ToEngine::Disconnected { member, session } => {
                self.context.disconnect(&member, session);
                self.write_status();
            }
            ToEngine::FetchAdapter { adapter, reply } => {
                let _ = reply.send(self.chain.fetch(&adapter));
            }
            ToEngine::UploadBegins {
                member,
                open,
                length,
                reply,
            } => {
                let _ = reply.send(self.admit_upload(&member, &open, length));
            }
            ToEngine::Uploaded {
                member,
                open,
                claim,
                reply,
            } => {
                let Some(from) = self.chain.index_of(&member) else {
                    let _ = reply.send(Err(UploadRefusal::NotOnRoster));
                    return Ok(Step::Open(self));
                };
                let input = Input::Uploaded { from, open, claim };
                match self.judge_upload(from, input).await {
                    Ok(event) => {
                        let step = self.advance(event).await;
                        let _ = reply.send(Ok(()));
                        return step;
                    }
                    Err(refusal) => {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
            ToEngine::Message { member, message } => return self.hear(member, *message).await,
        }
        Ok(Step::Open(self))
    }

    /// Deals with a member's control message.
    async fn hear(self, member: MemberName, message: ToAggregator) -> Result<Step, Box<Farewell>> {
        let links = &self.context.links;
        match (self.chain.index_of(&member), message) {
            // It closes its connection next, or waits for a round.
            (_, ToAggregator::Fetched { adapter }) => {
                tracing::debug!(%member, %adapter, "the member holds the adapter");
            }
            (None, _) => links.send(&member, MemberRefusal::RosterClosed.message()),
            (Some(from), ToAggregator::Ready(_)) => {
                self.chain.bring_up_to_date(links, &member);
                for message in self.coordinator.outstanding(from) {
                    links.send(&member, message);
                }
            }
            (Some(from), ToAggregator::Round { open, message }) => {
                let input = Input::Message {
                    from,
                    open,
                    message,
                };
                if let Ok(event) = self.decide_from(from, input) {
                    return self.advance(event).await;
                }
            }
        }
        Ok(Step::Open(self))
    }

    /// Closes phases whose time is up, and continues without members that stay away.
    async fn pass_time(self) -> Result<Step, Box<Farewell>> {
        let mut current = match self.decide(Input::Tick) {
            Err(_) => self,
            Ok(event) => match self.advance(event).await? {
                Step::Open(current) => current,
                closed => return Ok(closed),
            },
        };
        for member in current.absent() {
            if let Ok(event) = current.decide(Input::Absent { member }) {
                warn!(%member, "the member stays away; the round goes on without it");
                current = match current.advance(event).await? {
                    Step::Open(current) => current,
                    closed => return Ok(closed),
                };
            }
        }
        Ok(Step::Open(current))
    }

    /// The awaited members that have been away for longer than the plan's patience.
    fn absent(&self) -> Vec<MemberIndex> {
        let patience = Duration::from_secs(self.context.setup.plan.timeouts.reconnect);
        let now = self.context.now();
        let mut awaited = self.coordinator.awaited();
        awaited.retain(|member| {
            self.chain
                .name_of(*member)
                .and_then(|name| self.context.links.broken_since(name))
                // Who was away before gets the same time to come back for this round.
                .is_some_and(|since| since.max(self.opened).after(patience) <= now)
        });
        awaited
    }

    fn decide(&self, input: Input) -> Result<Event, Reject> {
        self.coordinator.decide(self.context.now(), input)
    }

    /// Judges what a member sent. What is wrong with it is logged.
    fn decide_from(&self, member: MemberIndex, input: Input) -> Result<Event, Reject> {
        self.decide(input).inspect_err(|reason| {
            warn!(%member, %reason, "a message was not taken");
            self.context.watch(RunEvent::Rejected {
                member,
                reason: reason.clone(),
            });
        })
    }

    /// Applies an event and carries its effects out.
    async fn advance(mut self, event: Event) -> Result<Step, Box<Farewell>> {
        let before = self.coordinator.phase();
        let (coordinator, effects) = self.coordinator.apply(event);
        let after = coordinator.phase();
        self.coordinator = coordinator;
        if let Some(phase) = after.filter(|_| before != after) {
            let round = self.coordinator.setup().open().round;
            info!(run = %self.context.setup.run, %round, %phase, "the phase begins");
            self.context.watch(RunEvent::Phase { round, phase });
            self.write_status();
        }
        self.carry_out(effects).await
    }

    async fn carry_out(mut self, effects: Vec<Effect>) -> Result<Step, Box<Farewell>> {
        for effect in effects {
            match effect {
                Effect::Send(member, message) => {
                    if let Some(name) = self.chain.name_of(member) {
                        self.context.links.send(name, message);
                    }
                }
                Effect::Accumulate(member) => {
                    if let Err(error) = self.accumulate(member).await {
                        warn!(%member, %error, "a stored update cannot be added");
                        return Ok(self.close(RoundFailure::Storage));
                    }
                }
                Effect::Unmask(completed) => return self.complete(*completed),
                Effect::Fail(reason) => return Ok(self.close(reason)),
            }
        }
        Ok(Step::Open(self))
    }

    /// Says where a member may store its update, while one is awaited from it.
    fn admit_upload(
        &self,
        member: &MemberName,
        open: &Digest,
        length: u64,
    ) -> Result<PathBuf, UploadRefusal> {
        let setup = self.coordinator.setup();
        let from = self
            .chain
            .index_of(member)
            .filter(|from| self.coordinator.awaited().contains(from))
            .ok_or(UploadRefusal::NotAwaited)?;
        if self.coordinator.phase() != Some(PhaseName::Updates) || open != setup.digest() {
            return Err(UploadRefusal::OtherRound);
        }
        let lanes = self.part.len() + AUXILIARY_LANES;
        let expected = pack::packed_len(setup.open().bits, lanes) as u64;
        if length != expected {
            return Err(UploadRefusal::Length {
                expected,
                found: length,
            });
        }
        Ok(self.upload_path(from))
    }

    /// Judges a stored update, once it is sure that it can be added: from the event on, its sender
    /// counts as a survivor.
    async fn judge_upload(&self, from: MemberIndex, input: Input) -> Result<Event, UploadRefusal> {
        let packed = tokio::fs::read(self.upload_path(from)).await?;
        tokio::task::block_in_place(|| self.sum.check(&packed)).map_err(std::io::Error::other)?;
        Ok(self.decide_from(from, input)?)
    }

    /// Adds a stored update to the running sum.
    async fn accumulate(&mut self, member: MemberIndex) -> std::io::Result<()> {
        let packed = tokio::fs::read(self.upload_path(member)).await?;
        tokio::task::block_in_place(|| self.sum.add(&packed)).map_err(std::io::Error::other)
    }

    /// Takes the masks off, applies the mean, publishes the result.
    fn complete(self, completed: Completed) -> Result<Step, Box<Farewell>> {
        let Self {
            context,
            mut chain,
            coordinator,
            part,
            sum,
            opened: _,
        } = self;
        let sum = tokio::task::block_in_place(|| sum.unmask(completed.unmasking));
        let rate = context.setup.plan.aggregation.server_learning_rate;
        let applied = publish::apply(chain.adapter(), &part, &context.format, &sum, rate);
        let (adapter, mean) = match applied {
            Ok(applied) => applied,
            Err(error) => {
                warn!(%error, "the unmasked sum is unusable");
                let outcome = RoundOutcome::Failed(RoundFailure::Sum);
                return Ok(closed(context, chain, outcome));
            }
        };
        let verified = publish::sign_result(
            coordinator.setup().open(),
            Participation {
                survivors: completed.survivors,
                dropped: completed.dropped,
                transcript: completed.transcript,
            },
            &adapter,
            &mean,
            chain.head(),
            &context.setup.operator.identity,
        );
        let signed = verified.unverified().clone();
        let name = &context.setup.plan.base.name;
        let stored = tokio::task::block_in_place(|| {
            publish::store(&context.setup.directory, &adapter, name, &signed)
        });
        let folder = match stored {
            Ok(folder) => folder,
            Err(error) => return Err(fail(context, chain, error.into())),
        };
        let result = verified.into_body();
        chain.extend(adapter, signed.clone());
        info!(
            run = %context.setup.run, round = %result.round, survivors = result.survivors.len(),
            weight = result.total_weight, adapter = %result.adapter, "the round is done"
        );
        chain.broadcast(&context.links, &ToMember::Result(signed));
        context.watch(RunEvent::RoundDone {
            result,
            sum: Arc::new(sum),
            folder,
        });
        context.write_status(chain.progress(RunState::Running, None, None));
        Ok(closed(context, chain, RoundOutcome::Done))
    }

    fn close(self, reason: RoundFailure) -> Step {
        closed(self.context, self.chain, RoundOutcome::Failed(reason))
    }

    fn upload_path(&self, member: MemberIndex) -> PathBuf {
        let open = self.coordinator.setup().open();
        upload_path(&self.context.setup.directory, open, member)
    }

    fn write_status(&self) {
        let phase = self.coordinator.phase();
        let progress = self.chain.progress(RunState::Running, None, phase);
        self.context.write_status(progress);
    }
}

fn closed(context: RunContext, chain: AdapterChain, outcome: RoundOutcome) -> Step {
    Step::Closed(ClosedRound {
        context,
        chain,
        outcome,
    })
}

fn fail(context: RunContext, chain: AdapterChain, failure: RunFailure) -> Box<Farewell> {
    Box::new(Farewell::failed(context, Reached::Rounds(chain), failure))
}
