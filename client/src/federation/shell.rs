//! Carries out what the member's machine asks for: sends, trains, uploads, fetches, tells the
//! user, and measures how long it takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::fixed::RoundEncoding;
use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
use fedlora_protocol::plan::{Roster, RunPlan};
use fedlora_protocol::round::member::{
    DoneRound, Member, MemberEffect as Effect, Prepared, RosterQuestion, RoundTask, RunOutcome,
    Stores, Upload,
};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{RoundMessage, RoundResult, ToAggregator, ToMember};
use fedlora_shell::SPANS;
use fedlora_transport::Traffic;
use fedlora_transport::bulk::{BulkError, Refusal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Instrument as _, Span, field, info, info_span, warn};

use super::events::{Awaited, MemberEvent, RoundReport, Stage};
use super::link::{BulkCarrier, LinkError, MemberLink};
use super::outcome::ParticipantError;
use super::parts::Parts;
use super::round_clock::RoundClock;
use super::work::{Trained, Training};
use crate::receipts::ReceiptsError;
use crate::update::UpdateError;

/// What the shell's own tasks report.
pub(super) enum Report {
    Trained(Trained),
    Uploaded {
        /// The digest of the round's M0.
        open: Digest,
        took: Duration,
        outcome: Result<(), LinkError>,
    },
    /// The user's answer about a roster.
    Consent {
        /// The roster's digest.
        roster: Digest,
        accepted: bool,
    },
}

/// The machine with all that it uses, over all sessions of a run.
pub(super) struct Shell {
    member: Member,
    parts: Parts,
    /// The run that this member is in, with its plan.
    plan: Option<(RunId, RunPlan)>,
    training: Option<Training>,
    clock: Option<RoundClock>,
    /// When the aggregator was last told that this member is at work.
    shown: Option<Instant>,
    /// The pinned roster, by which people are told names.
    roster: Option<Roster>,
    /// The round that this member is in.
    round: Option<RoundNumber>,
    waiting: Option<Wait>,
    /// What a collector of traces gets of the current round.
    span: Span,
    reports: mpsc::UnboundedSender<Report>,
    /// Of earlier sessions.
    traffic: Traffic,
    /// Messages of all sessions.
    heard: u64,
}

/// How many times the aggregator is told of progress in the time in which it must hear of some.
const SIGNS_OF_PROGRESS: u32 = 5;

/// How long a member waits before it uploads again what could not be stored: at first, and at most.
const UPLOAD_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a member waits before it keeps again what could not be kept: at first, and the last time.
/// In between the connection stands: a minute in all.
const KEEP_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32));

/// How often a member is told that it waits still.
const STILL_WAITING: Duration = Duration::from_secs(30);

/// What this member waits for.
struct Wait {
    what: Awaited,
    since: Instant,
    told: Instant,
}

/// The outcome, where the run is over.
type Ended = Option<RunOutcome>;

impl Shell {
    pub(super) fn new(parts: Parts, reports: mpsc::UnboundedSender<Report>) -> Self {
        Self {
            member: Member::new(parts.member_settings()),
            parts,
            plan: None,
            training: None,
            clock: None,
            shown: None,
            roster: None,
            round: None,
            waiting: None,
            span: Span::none(),
            reports,
            traffic: Traffic::default(),
            heard: 0,
        }
    }

    /// The run that this member is in, or has agreed to.
    pub(super) fn run(&self) -> Option<RunId> {
        let begun = self.plan.as_ref().map(|(run, _)| *run);
        begun.or(self.parts.expected.map(|expected| expected.run))
    }

    /// How many messages came, over all sessions.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    pub(super) async fn on_message<L: MemberLink>(
        &mut self,
        link: &mut L,
        message: ToMember,
    ) -> Result<Ended, ParticipantError> {
        self.heard += 1;
        if message == ToMember::CopySeen {
            self.watch(MemberEvent::CopySeen);
            return Ok(None);
        }
        let effects = self.step(message);
        self.carry_out(link, effects).await
    }

    pub(super) async fn on_report<L: MemberLink>(
        &mut self,
        link: &mut L,
        report: Report,
    ) -> Result<Ended, ParticipantError> {
        match report {
            Report::Trained(trained) => {
                let effects = self.on_trained(trained)?;
                self.carry_out(link, effects).await
            }
            Report::Uploaded {
                open,
                took,
                outcome,
            } => {
                self.on_uploaded(open, took, outcome);
                Ok(None)
            }
            Report::Consent { roster, accepted } => {
                let pin = self.parts.pin.as_mut();
                let effects = if accepted {
                    self.member.accept_roster(&roster, pin)
                } else {
                    self.member.decline_roster(&roster, pin)
                };
                self.carry_out(link, effects).await
            }
        }
    }

    /// Tells the aggregator that this member is at work, while it trains or uploads; and its user that
    /// it waits still.
    pub(super) async fn show_progress<L: MemberLink>(
        &mut self,
        link: &mut L,
    ) -> Result<(), ParticipantError> {
        if let Some(wait) = &mut self.waiting
            && wait.told.elapsed() >= STILL_WAITING
        {
            wait.told = Instant::now();
            let (so_far, what) = (wait.since.elapsed(), wait.what);
            self.watch(MemberEvent::Waiting { so_far, what });
        }
        let at_work = self.clock.as_ref().filter(|clock| !clock.is_uploaded());
        let (Some(clock), Some((_, plan))) = (at_work, &self.plan) else {
            return Ok(());
        };
        let pause = Duration::from_secs(plan.timeouts.progress) / SIGNS_OF_PROGRESS;
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return Ok(());
        }
        self.shown = Some(Instant::now());
        let message = RoundMessage::Working;
        let open = clock.open.into();
        link.send(&ToAggregator::Round { open, message }).await?;
        Ok(())
    }

    pub(super) fn watch(&self, event: MemberEvent) {
        // Nobody need watch.
        let _ = self.parts.events.send(event);
    }

    /// This member waits for others from here on.
    fn wait_for(&mut self, what: Awaited) {
        if self.waiting.as_ref().is_some_and(|wait| wait.what == what) {
            return;
        }
        let now = Instant::now();
        self.waiting = Some(Wait {
            what,
            since: now,
            told: now,
        });
        let so_far = Duration::ZERO;
        self.watch(MemberEvent::Waiting { so_far, what });
    }

    /// What the protocol says, with names for indices where the roster is known.
    fn naming(&self, text: &impl ToString) -> String {
        match &self.roster {
            Some(roster) => roster.naming(&text.to_string()),
            None => text.to_string(),
        }
    }

    /// Adds the traffic of a session that ended.
    pub(super) fn add_traffic(&mut self, traffic: Traffic) {
        self.traffic.sent += traffic.sent;
        self.traffic.received += traffic.received;
    }

    fn step(&mut self, message: ToMember) -> Vec<Effect> {
        let mut stores = Stores {
            ledger: self.parts.ledger.as_mut(),
            pin: self.parts.pin.as_mut(),
        };
        self.member.message(message, &mut stores, &mut os_rng())
    }

    async fn carry_out<L: MemberLink>(
        &mut self,
        link: &mut L,
        effects: Vec<Effect>,
    ) -> Result<Ended, ParticipantError> {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Send(message) => link.send(&message).await?,
                Effect::Prepare { run, plan } => {
                    queue.extend(self.prepare(link.carrier(), run, *plan).await?);
                }
                Effect::Train(task) => self.train(*task),
                Effect::Encode {
                    round,
                    attempt,
                    encoding,
                } => queue.extend(self.encode(round, attempt, &encoding)),
                Effect::Upload(upload) => self.upload(link.carrier(), upload),
                Effect::Fetch { adapter, values } => {
                    queue.extend(self.fetch(link.carrier(), adapter, values).await?);
                }
                Effect::KeepRun(receipt) => self.parts.receipts.run(*receipt)?,
                Effect::KeepResult(result) => self.keep(*result).await?,
                Effect::AskConsent(question) => self.ask(*question),
                Effect::Pinned(roster) => self.on_pinned(&roster),
                Effect::Opened {
                    round,
                    attempt,
                    open,
                } => {
                    self.clock = Some(RoundClock::new(open, self.total_traffic(link)));
                    (self.round, self.waiting) = (Some(round), None);
                    self.span = self.round_span(round, attempt);
                    self.watch(MemberEvent::Opened { round, attempt });
                }
                Effect::Left { round, reason } => {
                    let reason = self.naming(&reason);
                    self.end_span("left")
                        .in_scope(|| info!(%round, %reason, "left the round"));
                    (self.clock, self.waiting) = (None, None);
                    self.watch(MemberEvent::Left { round, reason });
                }
                Effect::Abandoned {
                    round,
                    attempt,
                    reason,
                } => {
                    let reason = self.naming(&reason);
                    self.end_span("failed")
                        .in_scope(|| info!(%round, %attempt, %reason, "the round failed"));
                    (self.clock, self.waiting) = (None, None);
                    self.watch(MemberEvent::Abandoned {
                        round,
                        attempt,
                        reason,
                    });
                }
                Effect::RoundDone(done) => self.on_done(link, done),
                Effect::End(Ok(outcome)) => {
                    self.parts.work.ended(&outcome)?;
                    return Ok(Some(*outcome));
                }
                Effect::End(Err(error)) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Keeps a result. Where there is no room the machine waits here: nothing follows from a result that
    /// is not kept, and its user may make room.
    async fn keep(&mut self, result: Unverified<RoundResult>) -> Result<(), ParticipantError> {
        let (mut pause, longest) = KEEP_AGAIN;
        loop {
            match self.parts.receipts.result(result.clone()) {
                Err(error @ ReceiptsError::Io { .. }) if pause <= longest => {
                    let seconds = pause.as_secs();
                    warn!(%error, seconds, "a result cannot be kept; trying again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                kept => return Ok(kept?),
            }
        }
    }

    async fn prepare(
        &mut self,
        carrier: impl BulkCarrier,
        run: RunId,
        plan: RunPlan,
    ) -> Result<Vec<Effect>, ParticipantError> {
        if let Some(expected) = self.parts.expected
            && !expected.is(run, &plan)
        {
            return Err(ParticipantError::OtherRun {
                expected: expected.run,
                found: run,
            });
        }
        if let Some(adapter) = plan.start_from
            && !self.parts.floors.unknown_start
            && !(self.parts.receipts).has_held(&self.parts.aggregator, &adapter)?
        {
            return Err(ParticipantError::UnknownStart { adapter });
        }
        let work = Arc::clone(&self.parts.work);
        let mut adapter = work.first_adapter(&plan)?;
        work.fits(&plan)?;
        if let Some(start) = plan.start_from {
            adapter = starting(carrier, start, &adapter).await?;
        }
        info!(%run, rounds = plan.rounds, members = plan.members, "the plan is accepted");
        self.watch(MemberEvent::Planned {
            run,
            rounds: plan.rounds,
            steps: plan.training.steps,
            max_tokens: plan.training.max_tokens,
            cut: work.cut(&plan),
        });
        let base = work.base_digest()?;
        let needed = plan.members;
        self.plan = Some((run, plan));
        self.wait_for(Awaited::Members { needed });
        Ok(self.member.prepared(Prepared { base, adapter }))
    }

    fn train(&mut self, task: RoundTask) {
        let Some((_, plan)) = self.plan.clone() else {
            return;
        };
        // The former training stops, if there is one.
        let reports = self.reports.clone();
        self.training = Some(Training::begin(
            &self.span,
            Arc::clone(&self.parts.work),
            plan,
            task,
            Arc::clone(&self.parts.gate),
            self.parts.events.clone(),
            move |trained| {
                // The member is gone where nobody listens.
                let _ = reports.send(Report::Trained(trained));
            },
        ));
    }

    fn on_trained(&mut self, trained: Trained) -> Result<Vec<Effect>, ParticipantError> {
        let round = trained.round;
        let update = match trained.update {
            Ok(update) => update,
            Err(UpdateError::Stopped) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        self.watch(MemberEvent::Trained {
            round,
            report: update.report(),
        });
        if let Some(clock) = &mut self.clock {
            clock.add(Stage::Wait, trained.waited);
            clock.add(Stage::Train, trained.took);
        }
        match self.training.as_mut().filter(|one| one.round == round) {
            Some(training) => {
                training.update = Some(update);
                Ok(self.member.trained(round))
            }
            None => Ok(Vec::new()),
        }
    }

    fn encode(
        &mut self,
        round: RoundNumber,
        attempt: Attempt,
        encoding: &RoundEncoding,
    ) -> Vec<Effect> {
        let Some(update) = self.training.as_ref().and_then(|one| one.update.as_ref()) else {
            return Vec::new();
        };
        let begun = Instant::now();
        let work = &self.parts.work;
        let encoded = work.encode(round, attempt, update, encoding, &mut os_rng());
        let effects = self.member.encoded(round, attempt, encoded);
        if let Some(clock) = &mut self.clock {
            clock.add(Stage::Mask, begun.elapsed());
        }
        effects
    }

    /// Uploads beside the control messages, again where the aggregator could not store it.
    fn upload(&self, carrier: impl BulkCarrier, upload: Upload) {
        let reports = self.reports.clone();
        let span = info_span!(target: SPANS, parent: &self.span, "upload");
        let upload = async move {
            let begun = Instant::now();
            let outcome = until_stored(UPLOAD_AGAIN, || carrier.upload(&upload)).await;
            let _ = reports.send(Report::Uploaded {
                open: upload.open,
                took: begun.elapsed(),
                outcome,
            });
        };
        tokio::spawn(upload.instrument(span));
    }

    fn on_uploaded(&mut self, open: Digest, took: Duration, outcome: Result<(), LinkError>) {
        let Some(clock) = self.clock.as_mut().filter(|clock| clock.open == open) else {
            return;
        };
        match outcome {
            Ok(()) => {
                clock.uploaded(took);
                if let Some(round) = self.round {
                    self.watch(MemberEvent::Uploaded { round });
                    self.wait_for(Awaited::Round { round });
                }
            }
            // Taken before, or too late: the survivor list will tell.
            Err(LinkError::Refused { reason }) => info!(%reason, "the update was not taken"),
            // Where the session ended, the upload resumes in the next.
            Err(error) => info!(%error, "the upload broke off"),
        }
    }

    async fn fetch(
        &mut self,
        carrier: impl BulkCarrier,
        adapter: Digest,
        values: usize,
    ) -> Result<Vec<Effect>, ParticipantError> {
        if let Some(clock) = &mut self.clock {
            clock.result();
        }
        let begun = Instant::now();
        let span = info_span!(target: SPANS, parent: &self.span, "fetch");
        let values = match carrier.fetch(adapter, values).instrument(span).await {
            Ok(values) => Some(values),
            // Another round has been done since: its result follows.
            Err(LinkError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(clock) = &mut self.clock {
            clock.add(Stage::Fetch, begun.elapsed());
        }
        Ok(self.member.fetched(values))
    }

    /// Asks the user, on a thread that the end of the program does not wait for.
    fn ask(&self, question: RosterQuestion) {
        let (consent, reports) = (Arc::clone(&self.parts.consent), self.reports.clone());
        std::thread::spawn(move || {
            let accepted = consent.ask(&question);
            let roster = question.roster.digest();
            // The member is gone where nobody listens.
            let _ = reports.send(Report::Consent { roster, accepted });
        });
    }

    fn on_pinned(&mut self, roster: &Roster) {
        let digest = roster.digest();
        info!(members = roster.len(), roster = %digest, "the roster is pinned");
        let members = roster
            .entries()
            .iter()
            .map(|entry| (entry.name.clone(), entry.identity.fingerprint()))
            .collect();
        self.watch(MemberEvent::Roster { members, digest });
        self.roster = Some(roster.clone());
        self.wait_for(Awaited::Roster);
    }

    /// What a collector of traces gets of an attempt at a round.
    fn round_span(&self, round: RoundNumber, attempt: Attempt) -> Span {
        let run = self.run().map(field::display);
        info_span!(
            target: SPANS, parent: None, "round", run, %round, %attempt, outcome = field::Empty
        )
    }

    /// Ends the current round's span, once the caller has said in it how the round ended.
    fn end_span(&mut self, outcome: &str) -> Span {
        let span = std::mem::replace(&mut self.span, Span::none());
        span.record("outcome", outcome);
        span
    }

    fn on_done(&mut self, link: &impl MemberLink, done: DoneRound) {
        let DoneRound {
            round,
            survivors,
            took_part,
            taken_back,
            held,
        } = done;
        if let Some(held) = held
            && let Err(error) = self.parts.receipts.held(&held)
        {
            // A later run that begins from it will not be known to do so.
            warn!(%error, "that this member holds the round's adapter cannot be noted");
        }
        self.end_span("done")
            .in_scope(|| info!(%round, survivors, took_part, taken_back, "the round is done"));
        self.training = None;
        (self.round, self.waiting) = (None, None);
        let (seconds, traffic) = match self.clock.take() {
            Some(clock) => clock.finish(self.total_traffic(link)),
            None => (Vec::new(), Traffic::default()),
        };
        self.watch(MemberEvent::RoundDone(RoundReport {
            round,
            survivors,
            took_part,
            taken_back,
            traffic,
            seconds,
        }));
    }

    fn total_traffic(&self, link: &impl MemberLink) -> Traffic {
        let traffic = link.traffic();
        Traffic {
            sent: self.traffic.sent + traffic.sent,
            received: self.traffic.received + traffic.received,
        }
    }
}

/// Fetches the adapter that a plan begins from: of the shape of `fresh`, which follows from the plan and
/// this member's base. Its digest is checked with the plan.
async fn starting(
    carrier: impl BulkCarrier,
    start: Digest,
    fresh: &Adapter,
) -> Result<Adapter, ParticipantError> {
    let unfit = |reason: String| ParticipantError::Start {
        adapter: start,
        reason,
    };
    let layout = fresh.layout();
    let values = match carrier.fetch(start, layout.len()).await {
        Ok(values) => values,
        Err(LinkError::Refused { reason }) => return Err(unfit(reason)),
        Err(LinkError::Bulk(BulkError::Rejected(refusal))) => {
            return Err(unfit(refusal.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let adapter = Adapter::new(fresh.config().clone(), layout.clone(), values);
    adapter.map_err(|error| unfit(error.to_string()))
}

/// Uploads until the aggregator has stored it or gives another reason. A full disk there is no end
/// of the session, and the operator may make room. Once the round is over, the aggregator refuses.
async fn until_stored<F>(
    (mut pause, longest): (Duration, Duration),
    mut upload: impl FnMut() -> F,
) -> Result<(), LinkError>
where
    F: Future<Output = Result<(), LinkError>>,
{
    loop {
        match upload().await {
            Err(LinkError::Bulk(BulkError::Refused(refusal @ Refusal::Storage(_)))) => {
                warn!(%refusal, seconds = pause.as_secs(), "the upload is tried again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(longest);
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));

    #[tokio::test]
    async fn what_could_not_be_stored_is_uploaded_again() {
        let begun = Instant::now();
        let mut tries = 0;
        let full = || Err(BulkError::Refused(Refusal::Storage(7)).into());
        let outcome = until_stored(SHORT, || {
            tries += 1;
            std::future::ready(if tries < 6 { full() } else { Ok(()) })
        });
        outcome.await.unwrap();
        assert_eq!(tries, 6);
        // 1, 2, 4, 4 and 4 milliseconds.
        assert!(begun.elapsed() >= Duration::from_millis(15));
    }

    #[tokio::test]
    async fn another_reason_is_the_end() {
        for error in [
            LinkError::Refused {
                reason: "the round is over".into(),
            },
            BulkError::Refused(Refusal::Digest).into(),
        ] {
            let told = error.to_string();
            let mut once = Some(error);
            let upload = || std::future::ready(Err(once.take().unwrap()));
            let outcome = until_stored(SHORT, upload).await;
            assert_eq!(outcome.unwrap_err().to_string(), told);
        }
    }
}
