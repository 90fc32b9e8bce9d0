//! One attempt at a round: inputs in, effects carried out, until it is done or has failed. Steps 8
//! and 9 of the round.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Layout;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, GroupIndex, MemberIndex, MemberName, RoundNumber};
use fedlora_protocol::round::coordinator::{
    Completed, Coordinator, CoordinatorEffect as Effect, Event, EventKind, Fault, Input, Reject,
    RoundSetup,
};
use fedlora_protocol::wire::messages::{
    PhaseName, RoundFailure, RoundMessage, ToAggregator, vector_digest,
};
use tokio::task::block_in_place;
use tracing::{debug, info, warn};

use super::chain::AdapterChain;
use super::closed_round::{AttemptFailure, ClosedRound, end_run};
use super::context::{RETURN, RunContext, TICK};
use super::failure::RunFailure;
use super::farewell::Farewell;
use super::keeping::Keeping;
use super::messages::{RunEvent, ToEngine};
use super::overview::{Due, Waiting};
use super::patience::{Downloads, Progress};
use super::refusal::{MemberRefusal, UploadRefusal};
use super::returning;
use super::tally::Tally;
use crate::audit::{self, AuditError, BegunAttempt, KeptOpening};
use crate::publish::{self, Participation};
use crate::status::RunState;

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
    let (current, effects) = CurrentRound::open(context, chain, round, attempt)?;
    let step = current.carry_out(effects).await?;
    go_on(step).await
}

/// Goes on with an attempt that an aggregator had begun and left.
///
/// # Errors
/// What ends the run with it.
pub(super) async fn take_up_round(
    context: RunContext,
    chain: AdapterChain,
    begun: BegunAttempt,
) -> Result<ClosedRound, Box<Farewell>> {
    let step = CurrentRound::take_up(context, chain, begun).await?;
    go_on(step).await
}

async fn go_on(mut step: Step) -> Result<ClosedRound, Box<Farewell>> {
    let mut tick = tokio::time::interval(TICK);
    loop {
        let mut current = match step {
            Step::Open(current) => current,
            Step::Closed(closed) => return Ok(closed),
        };
        step = tokio::select! {
            message = current.context.inbox.recv() => match message {
                Some(message) => {
                    current.context.note(&message);
                    current.handle(message).await?
                }
                None => return Err(current.stop(RunFailure::Stopped)),
            },
            _ = tick.tick() => current.pass_time().await?,
        };
    }
}

/// An attempt that is under way.
#[derive(Debug)]
struct CurrentRound {
    context: RunContext,
    chain: AdapterChain,
    coordinator: Coordinator,
    /// The part of the adapter that this round trains and sums.
    part: Layout,
    tally: Tally,
    /// The phase that is open, or was open last.
    last_phase: Option<PhaseName>,
    /// A member that was away before counts as away from here on.
    opened: Timestamp,
    /// Who shows that it trains or uploads.
    working: Progress,
    /// The attempt's record.
    keeping: Keeping,
    /// The digest of the update that the current event takes.
    claimed: Option<Digest>,
    /// Whom the open phase waited for at first.
    phase_began_with: Vec<MemberIndex>,
    /// Who takes no further part.
    left: BTreeSet<MemberIndex>,
}

/// The digest of the masked update that an event takes, as its member signed it.
fn claimed(event: &Event) -> Option<Digest> {
    match &event.kind {
        EventKind::UpdateTaken(claim) => Some(claim.claimed().vector),
        _ => None,
    }
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
    ) -> Result<(Self, Vec<Effect>), Box<Farewell>> {
        let plan = &context.setup.plan;
        let factors = plan.adapter.factors.factors_in(round);
        let standing = chain.standing(&context, factors);
        let layout = chain.part(factors).digest();
        let opening = KeptOpening {
            opened: context.now(),
            offenders: (context.offenders).of_round(chain.roster.len(), context.policy.quorum()),
            open: standing.open(plan, &context.policy, layout, (round, attempt)),
        };
        info!(run = %context.setup.run, %round, %attempt, "the round opens");
        let keeping = match Keeping::begin(&context.setup, &opening) {
            Ok(keeping) => keeping,
            Err(error) => return Err(end_run(context, chain, None, error.into())),
        };
        let (mut current, effects) = Self::begin(context, chain, opening, keeping);
        current
            .context
            .watch(RunEvent::RoundOpened { round, attempt });
        current.tell(Due::Line);
        Ok((current, effects))
    }

    /// An attempt before its first event.
    fn begin(
        context: RunContext,
        chain: AdapterChain,
        opening: KeptOpening,
        keeping: Keeping,
    ) -> (Self, Vec<Effect>) {
        let KeptOpening {
            opened,
            offenders,
            open,
        } = opening;
        let plan = &context.setup.plan;
        let part = chain.part(open.factors);
        let groups = context.policy.groups().count();
        let tally = Tally::new(&context.setup.directory, &open, &part, groups);
        let roster = Arc::clone(&chain.roster);
        let setup = RoundSetup::new(open, roster, context.policy, plan);
        let silence = Duration::from_secs(plan.timeouts.progress);
        let setup = Arc::new(setup.not_waiting_for(offenders));
        let (coordinator, effects) = Coordinator::open(setup, opened);
        let current = Self {
            tally,
            context,
            chain,
            last_phase: coordinator.phase(),
            phase_began_with: coordinator.awaited(),
            left: BTreeSet::new(),
            coordinator,
            part,
            opened,
            working: Progress::begin(opened, silence),
            keeping,
            claimed: None,
        };
        (current, effects)
    }

    /// An attempt as its record has it: each event is judged and applied again. Then the members that
    /// are back are told what is outstanding; the others are once they are.
    async fn take_up(
        mut context: RunContext,
        chain: AdapterChain,
        begun: BegunAttempt,
    ) -> Result<Step, Box<Farewell>> {
        let last_seen = begun.last_seen();
        let (opening, events, record) = begun.into_parts();
        let (round, attempt) = (opening.open.round, opening.open.attempt);
        for member in opening.offenders.iter() {
            context.offenders.add(member);
        }
        let keeping = Keeping::go_on(record);
        let (mut current, _) = Self::begin(context, chain, opening, keeping);
        info!(%round, %attempt, events = events.len(), "the round is taken up");
        for (place, event) in events.into_iter().enumerate() {
            if !audit::is_genuine(&current.coordinator, &event) {
                return Err(current.stop(AuditError::Event { number: place + 1 }));
            }
            current.claimed = claimed(&event);
            let before = current.coordinator.phase();
            current.note_left(&event);
            let (coordinator, mut effects) = current.coordinator.apply(event);
            current.last_phase = coordinator.phase().or(current.last_phase);
            current.coordinator = coordinator;
            if current.coordinator.phase() != before {
                current.phase_began_with = current.coordinator.awaited();
            }
            effects.retain(|effect| !matches!(effect, Effect::Send(..)));
            current = match current.carry_out(effects).await? {
                Step::Open(current) => current,
                closed => return Ok(closed),
            };
        }
        if let Err(failure) = returning::wait(&mut current.context, &current.chain).await {
            return Err(current.stop(failure));
        }
        // The replay's own time does not count either.
        let roster = Arc::clone(&current.chain.roster);
        current.context.go_on_from(last_seen, &roster);
        current.opened = current.context.now().after(RETURN);
        let silence = Duration::from_secs(current.context.setup.plan.timeouts.progress);
        current.working = Progress::begin(current.opened, silence);
        for entry in roster.entries() {
            current.bring_back(&entry.name);
        }
        current.tell(Due::Line);
        Ok(Step::Open(current))
    }

    /// Adds the update that the current event takes to the sum of its group, once it is sure that it
    /// is the one that its member signed for: another transfer may have replaced it.
    ///
    /// # Errors
    /// A file that cannot be read or moved; within, what is wrong with the update.
    async fn add(
        &mut self,
        member: MemberIndex,
        group: GroupIndex,
    ) -> Result<io::Result<()>, RunFailure> {
        let path = self.keeping.take_upload(member, self.tally.path(member))?;
        let packed = tokio::fs::read(&path).await;
        let packed = packed.map_err(|source| AuditError::Io { path, source })?;
        let signed = block_in_place(|| Some(vector_digest(&packed))) == self.claimed;
        Ok(match signed {
            true => self.tally.add(&packed, group),
            false => Err(io::Error::other("it is not what its member signed for")),
        })
    }

    /// Ends the process's part in the run, which another can take up.
    fn stop(self, failure: impl Into<RunFailure>) -> Box<Farewell> {
        end_run(self.context, self.chain, self.last_phase, failure.into())
    }

    /// Tells a member that is connected where the run stands, and what it is waited for with.
    fn bring_back(&self, member: &MemberName) {
        let links = &self.context.links;
        let Some(from) = self
            .chain
            .index_of(member)
            .filter(|_| links.is_connected(member))
        else {
            return;
        };
        self.chain.show_results(links, member);
        for message in self.coordinator.outstanding(from) {
            links.send(member, message);
        }
    }

    /// Whether a member that is back has lost the round: it gave a part of it and was started again,
    /// so that its keys are gone, and it cannot go on.
    fn has_lost_round(&self, member: MemberIndex) -> bool {
        let tag = (*self.coordinator.setup().digest()).into();
        let name = self.chain.name_of(member);
        name.is_some_and(|name| self.context.links.is_elsewhere(name, tag))
            && !self.coordinator.can_begin(member)
    }

    /// Deals with one message from a session.
    async fn handle(mut self, message: ToEngine) -> Result<Step, Box<Farewell>> {
        match message {
            ToEngine::Connected {
                member,
                session,
                outbox,
                ..
            } => {
                self.context.connect(member, session, outbox);
                self.context.overview.changed(Due::Status);
            }
            ToEngine::Disconnected {
                member,
                session,
                said,
            } => {
                self.context.disconnect(&member, session);
                if let Some(reason) = &said {
                    warn!(%member, %reason, "the member does not take part");
                }
                self.context.overview.changed(Due::Status);
            }
            ToEngine::Moved { .. } | ToEngine::OwnCertificate { .. } => {}
            ToEngine::FetchAdapter { adapter, reply } => {
                let _ = reply.send(self.chain.fetch(&adapter));
            }
            ToEngine::UploadBegins {
                member,
                open,
                length,
                reply,
            } => {
                let admitted = self.admit_upload(&member, &open, length);
                if let (Ok(_), Some(from)) = (&admitted, self.chain.index_of(&member)) {
                    self.working.hear(from, self.context.now());
                }
                let _ = reply.send(admitted);
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
    async fn hear(
        mut self,
        member: MemberName,
        message: ToAggregator,
    ) -> Result<Step, Box<Farewell>> {
        if let ToAggregator::Round { open, .. } = &message {
            self.context.links.is_in(&member, Some(*open));
        }
        let links = &mut self.context.links;
        match (self.chain.index_of(&member), message) {
            // It closes its connection next, or waits for a round.
            (_, ToAggregator::Fetched { adapter }) => {
                debug!(%member, %adapter, "the member holds the adapter");
            }
            (None, _) => links.send(&member, MemberRefusal::RosterClosed.message()),
            (Some(_), ToAggregator::Ready(_)) => self.chain.show_roster(links, &member),
            // It takes part from here on: it may have asked its user, or come back.
            (Some(_), ToAggregator::Accepted { round, .. }) => {
                links.is_in(&member, round);
                self.bring_back(&member);
            }
            (
                Some(from),
                ToAggregator::Round {
                    message: RoundMessage::Working,
                    ..
                },
            ) => self.working.hear(from, self.context.now()),
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
    fn remember_late(&mut self, event: &Event) {
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

    /// A member held up the round: no phase waits for it again until it is in a sum.
    fn offend(&mut self, member: MemberIndex) {
        if self.context.offenders.add(member) {
            let member = self.chain.display(member);
            warn!(%member, "the member held up the round: the next ones do not wait for it");
        }
    }

    /// Tells of a member's fault, and keeps what proves it.
    fn blame(&mut self, fault: Fault) {
        let member = fault.member();
        let name = self.chain.display(member);
        let what = self.chain.roster.naming(&fault.to_string());
        warn!(member = %name, fault = %what, "a member broke the protocol");
        // Who may have been lied about is waited for as before.
        if fault.is_certain(self.context.policy.colluders()) {
            self.offend(member);
        }
        if let Some(evidence) = fault.evidence() {
            match block_in_place(|| {
                publish::store_evidence(&self.context.setup.directory, evidence, member)
            }) {
                Ok(path) => warn!(member = %name, path = %path.display(), "the evidence is kept"),
                Err(error) => warn!(member = %name, %error, "the evidence cannot be kept"),
            }
        }
        let fault = Box::new(fault);
        self.context.watch(RunEvent::Blamed { fault });
    }

    fn decide(&self, input: Input) -> Result<Event, Reject> {
        self.coordinator.decide(self.context.now(), input)
    }

    /// Judges what a member sent. What is wrong with it is logged: what came late or twice is nothing
    /// to worry about.
    fn decide_from(&mut self, member: MemberIndex, input: Input) -> Result<Event, Reject> {
        let decided = self.decide(input);
        if let Err(reason) = &decided {
            let name = self.chain.display(member);
            let said = self.chain.roster.naming(&reason.to_string());
            match reason.is_harmless() {
                true => info!(member = %name, reason = %said, "a message was not needed"),
                false => warn!(member = %name, reason = %said, "a message was not taken"),
            }
            self.context.overview.messages_refused += u64::from(!reason.is_harmless());
            self.context.watch(RunEvent::Rejected {
                member,
                reason: reason.clone(),
            });
        }
        decided
    }

    /// Takes note of a member that takes no further part.
    fn note_left(&mut self, event: &Event) {
        if let EventKind::Left(member) = &event.kind {
            self.left.insert(*member);
        }
    }

    /// Applies an event and carries its effects out.
    async fn advance(mut self, event: Event) -> Result<Step, Box<Farewell>> {
        let before = self.coordinator.phase();
        self.remember_late(&event);
        self.note_left(&event);
        self.claimed = claimed(&event);
        if let Err(error) = self.keeping.note(&event) {
            return Err(self.stop(error));
        }
        let (coordinator, effects) = self.coordinator.apply(event);
        // Members repeat what nothing has followed from yet.
        if !effects.is_empty()
            && let Err(error) = self.keeping.sync()
        {
            // The coordinator went with the event: what it became is not needed.
            self.coordinator = coordinator;
            return Err(self.stop(error));
        }
        let after = coordinator.phase();
        self.coordinator = coordinator;
        if let Some(phase) = after.filter(|_| before != after) {
            let round = self.coordinator.setup().open().round;
            info!(run = %self.context.setup.run, %round, %phase, "the phase begins");
            self.last_phase = Some(phase);
            if phase == PhaseName::Updates {
                let silence = Duration::from_secs(self.context.setup.plan.timeouts.progress);
                self.working = Progress::begin(self.context.now(), silence);
            }
            self.context.watch(RunEvent::Phase { round, phase });
            self.phase_began_with = self.coordinator.awaited();
            self.tell(Due::Line);
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
                Effect::Accumulate(member, group) => match self.add(member, group).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        let member = self.chain.display(member);
                        warn!(%member, %error, "a stored update cannot be added");
                        return Ok(self.fail(RoundFailure::Storage));
                    }
                    Err(failure) => return Err(self.stop(failure)),
                },
                Effect::Blame(fault) => self.blame(fault),
                Effect::Unmask(completed) => return self.complete(*completed),
                Effect::Fail(reason) => return Ok(self.fail(reason)),
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
        let expected = self.tally.update_bytes();
        if length != expected {
            return Err(UploadRefusal::Length {
                expected,
                found: length,
            });
        }
        Ok(self.tally.path(from))
    }

    /// Judges a stored update, once it is sure that it can be added: from the event on, its sender
    /// counts as a survivor.
    async fn judge_upload(
        &mut self,
        from: MemberIndex,
        input: Input,
    ) -> Result<Event, UploadRefusal> {
        self.tally.check(from).await?;
        self.decide_from(from, input)
            .map_err(|reject| UploadRefusal::Rejected {
                said: self.chain.roster.naming(&reject.to_string()),
                reject,
            })
    }

    /// Takes the masks off, applies the mean, publishes the result.
    fn complete(self, completed: Completed) -> Result<Step, Box<Farewell>> {
        self.keeping.end();
        let sums = self.tally.into_sums();
        let (groups, rule) = (completed.groups, completed.rule);
        let sum = block_in_place(|| Completed::unmask(groups, rule, sums));
        let participation = Participation {
            survivors: completed.survivors,
            dropped: completed.dropped,
            transcript: completed.transcript,
        };
        let open = self.coordinator.setup().open();
        ClosedRound::publish(
            self.context,
            self.chain,
            open,
            &self.part,
            sum,
            participation,
            self.last_phase,
        )
        .map(Step::Closed)
    }

    fn fail(mut self, reason: RoundFailure) -> Step {
        if let RoundFailure::Beacon { member } | RoundFailure::Deal { member } = reason {
            self.offend(member);
        }
        self.keeping.end();
        let open = self.coordinator.setup().open();
        let failure = AttemptFailure {
            reason,
            phase: self.last_phase,
        };
        Step::Closed(ClosedRound::failed(self.context, self.chain, open, failure))
    }

    /// Tells what is due of whom the phase waits for.
    fn tell(&mut self, due: Due) {
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
