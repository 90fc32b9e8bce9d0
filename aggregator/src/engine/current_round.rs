//! One attempt at a round: inputs in, effects carried out, until it is done or has failed. Steps 8
//! and 9 of the round.

mod hearing;
mod waiting;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Layout;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, GroupIndex, MemberIndex, RoundNumber};
use fedlora_protocol::round::coordinator::{
    Completed, Coordinator, CoordinatorEffect as Effect, Event, EventKind, Input, Reject,
    RoundSetup,
};
use fedlora_protocol::wire::messages::{PhaseName, RoundFailure};
use fedlora_shell::SPANS;
use tracing::{Span, info, info_span, warn};

use super::chain::AdapterChain;
use super::closed_round::{AttemptFailure, ClosedRound, end_run};
use super::context::{RETURN, RunContext, TICK};
use super::failure::RunFailure;
use super::farewell::Farewell;
use super::keeping::Keeping;
use super::messages::RunEvent;
use super::overview::Due;
use super::patience::Progress;
use super::returning;
use super::tally::{AddError, Tally};
use crate::audit::{self, AuditError, BegunAttempt, KeptOpening};
use crate::blocking;
use crate::publish::Participation;

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
    /// Ends with the phase.
    phase_span: Span,
}

/// What a collector of traces gets of a phase.
fn phase_span(phase: Option<PhaseName>) -> Span {
    match phase {
        Some(phase) => info_span!(target: SPANS, "phase", %phase),
        None => Span::none(),
    }
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
            phase_span: phase_span(coordinator.phase()),
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
                current.phase_span = phase_span(current.coordinator.phase());
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

    /// Adds the update that the current event takes to the sum of its group. It must be the one that its
    /// member signed for: another transfer may have replaced it.
    ///
    /// # Errors
    /// A file that cannot be read or moved; within, what is wrong with the update, and the sum with it.
    fn add(
        &mut self,
        member: MemberIndex,
        group: GroupIndex,
    ) -> Result<Result<(), AddError>, RunFailure> {
        let path = self.keeping.take_upload(member, self.tally.path(member))?;
        match self.tally.add(&path, group, self.claimed) {
            Err(AddError::Read(source)) => Err(AuditError::Io { path, source }.into()),
            added => Ok(added),
        }
    }

    /// Ends the process's part in the run, which another can take up.
    fn stop(self, failure: impl Into<RunFailure>) -> Box<Farewell> {
        end_run(self.context, self.chain, self.last_phase, failure.into())
    }

    fn decide(&self, input: Input) -> Result<Event, Reject> {
        self.coordinator.decide(self.context.now(), input)
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
            self.phase_span = phase_span(Some(phase));
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
                        self.context.links.tell(name, message);
                    }
                }
                Effect::Accumulate(member, group) => match self.add(member, group) {
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

    /// Takes the masks off, applies the mean, publishes the result.
    fn complete(self, completed: Completed) -> Result<Step, Box<Farewell>> {
        self.keeping.end();
        let sums = self.tally.into_sums();
        let (groups, rule) = (completed.groups, completed.rule);
        let sum = blocking::in_place(|| Completed::unmask(groups, rule, sums));
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
}
