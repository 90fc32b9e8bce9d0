//! The member's loop: one session after another, and the run's state across them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::ids::{RoundNumber, RunId};
use fedlora_protocol::plan::{Roster, RunPlan, SignedPlan};
use fedlora_protocol::round::participant::{Expectation, Refusal, RoundContext, check_result};
use fedlora_protocol::wire::Unverified;
use fedlora_protocol::wire::messages::{
    Open, Ready, RoundMessage, RoundResult, ToAggregator, ToMember,
};
use fedlora_transport::Traffic;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Participant;
use super::events::{MemberEvent, RoundReport, Stage};
use super::fault::CutPoint;
use super::outcome::{Outcome, ParticipantError, is_identity};
use super::round::{ActiveRound, Phase, Reaction, Training};
use crate::connection::{Link, LinkError};
use crate::update::{LocalUpdate, Task, UpdateError};

/// The first pause before connecting again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the member's own tasks report.
enum Internal {
    Trained {
        round: RoundNumber,
        waited: Duration,
        took: Duration,
        update: Result<LocalUpdate, UpdateError>,
    },
    Uploaded {
        open: Digest,
        took: Duration,
        outcome: Result<(), LinkError>,
    },
}

/// How a session ended.
enum SessionEnd {
    Finished,
    /// A simulation cut this member off: it stays away for the round.
    Cut,
}

/// What lasts over all sessions of a run.
struct RunState {
    id: RunId,
    plan: RunPlan,
    adapter: Adapter,
    context: Option<Arc<RoundContext>>,
    chain: Option<Digest>,
    last_round: RoundNumber,
    took_part: u32,
}

struct Member {
    settings: Participant,
    run: Option<RunState>,
    active: Option<ActiveRound>,
    training: Option<Training>,
    internal: mpsc::UnboundedSender<Internal>,
    traffic: Traffic,
}

/// Takes part until the run ends.
pub(super) async fn run(settings: Participant) -> Result<Outcome, ParticipantError> {
    let (internal, mut reports) = mpsc::unbounded_channel();
    let mut member = Member {
        settings,
        run: None,
        active: None,
        training: None,
        internal,
        traffic: Traffic::default(),
    };
    let mut pause = FIRST_PAUSE;
    let mut lost = Instant::now();
    loop {
        let settings = &member.settings;
        let opened = Link::open(
            &settings.address,
            &settings.credentials,
            &settings.authority,
        )
        .await;
        let broken = match opened {
            Ok(mut link) => {
                member.watch(MemberEvent::Connected {
                    address: member.settings.address.clone(),
                });
                pause = FIRST_PAUSE;
                let ended = member.session(&mut link, &mut reports).await;
                member.add_traffic(link.traffic());
                match ended {
                    Ok(SessionEnd::Finished) => {
                        link.finish().await;
                        return member.outcome();
                    }
                    Ok(SessionEnd::Cut) => {
                        link.cut();
                        member.active = None;
                        // Long enough for the round to go on without this member.
                        tokio::time::sleep(member.time_away()).await;
                        lost = Instant::now();
                        continue;
                    }
                    Err(ParticipantError::Link(error)) => {
                        lost = Instant::now();
                        error
                    }
                    Err(other) => {
                        link.finish().await;
                        return Err(other);
                    }
                }
            }
            Err(error) => error,
        };
        let hopeless = matches!(&broken, LinkError::Transport(error) if is_identity(error));
        if hopeless || lost.elapsed() > member.settings.patience {
            return Err(broken.into());
        }
        member.watch(MemberEvent::Disconnected {
            reason: broken.to_string(),
        });
        info!(error = %broken, "not connected; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl Member {
    async fn session(
        &mut self,
        link: &mut Link,
        reports: &mut mpsc::UnboundedReceiver<Internal>,
    ) -> Result<SessionEnd, ParticipantError> {
        loop {
            let end = tokio::select! {
                message = link.receive() => self.on_message(link, message?).await?,
                report = reports.recv() => {
                    let report = report.expect("this member holds a sender");
                    self.on_report(link, report).await?
                }
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    async fn on_message(
        &mut self,
        link: &mut Link,
        message: ToMember,
    ) -> Result<Option<SessionEnd>, ParticipantError> {
        match message {
            ToMember::Plan(signed) => self.on_plan(link, signed).await?,
            ToMember::Roster(roster) => self.on_roster(&roster)?,
            ToMember::Open(open) => return self.on_open(link, open).await,
            ToMember::Result(result) => self.on_result(link, result).await?,
            ToMember::Abandoned {
                round,
                attempt,
                reason,
            } => {
                warn!(%round, %attempt, %reason, "the round failed");
                // The trained update stays: where no share was revealed, the next attempt masks
                // it anew.
                self.active = None;
            }
            ToMember::Finished { failure: None } => return Ok(Some(SessionEnd::Finished)),
            ToMember::Finished {
                failure: Some(reason),
            } => return Err(ParticipantError::Failed { reason }),
            ToMember::Refused { reason } => return Err(ParticipantError::Refused { reason }),
            ToMember::Survivors(list) => {
                if self.cuts(CutPoint::Confirm) {
                    return Ok(Some(SessionEnd::Cut));
                }
                self.react(link, |round, _| round.on_survivors(list))
                    .await?;
            }
            ToMember::PeerKeys(keys) => {
                self.react(link, |round, _| round.on_peer_keys(keys))
                    .await?;
            }
            ToMember::PeerShares(shares) => {
                self.react(link, |round, _| round.on_peer_shares(shares))
                    .await?;
                return self.mask_and_upload(link).await;
            }
            ToMember::Confirmations(confirmations) => {
                self.react(link, |round, settings| {
                    round.on_confirmations(confirmations, settings.ledger.as_mut())
                })
                .await?;
            }
        }
        Ok(None)
    }

    async fn on_plan(
        &mut self,
        link: &mut Link,
        signed: SignedPlan,
    ) -> Result<(), ParticipantError> {
        let (id, plan) = signed.verify(&self.settings.aggregator)?;
        if self.run.as_ref().is_some_and(|run| run.id != id) {
            return Err(ParticipantError::OtherRun);
        }
        if self.run.is_none() {
            self.settings.floors.admit(&plan)?;
            let work = Arc::clone(&self.settings.work);
            let adapter = work.first_adapter(&plan)?;
            work.fits(&plan)?;
            info!(run = %id, rounds = plan.rounds, members = plan.members, "the plan is accepted");
            self.watch(MemberEvent::Planned {
                run: id,
                rounds: plan.rounds,
                steps: plan.training.steps,
                max_tokens: plan.training.max_tokens,
                cut: work.cut(&plan),
            });
            self.run = Some(RunState {
                id,
                plan,
                adapter,
                context: None,
                chain: None,
                last_round: RoundNumber(0),
                took_part: 0,
            });
        }
        let run = self.run.as_ref().expect("set above");
        // The first adapter, whatever round it is: the aggregator knows which one is newest.
        let first = self.settings.work.first_adapter(&run.plan)?;
        let ready = Ready {
            base: self.settings.work.base_digest()?,
            layout: first.layout().clone(),
            adapter: first.digest(),
        };
        Ok(link.send(&ToAggregator::Ready(ready)).await?)
    }

    fn on_roster(&mut self, roster: &Roster) -> Result<(), ParticipantError> {
        let Some(run) = &mut self.run else {
            return Ok(());
        };
        // The plan's floors and the fixed-point format were checked for this many.
        if roster.len() != run.plan.members {
            return Err(ParticipantError::RosterSize {
                got: roster.len(),
                planned: run.plan.members,
            });
        }
        self.settings.pin.pin(roster)?;
        if run.context.is_some() {
            return Ok(());
        }
        let me = roster
            .index_of(&self.settings.name)
            .filter(|me| {
                roster
                    .get(*me)
                    .is_some_and(|entry| entry.identity == self.settings.identity.public())
            })
            .ok_or(ParticipantError::NotOnRoster)?;
        let minimum = run.plan.policy()?.minimum();
        let plan = run.plan.digest();
        run.context = Some(Arc::new(RoundContext {
            run: run.id,
            me,
            identity: Arc::clone(&self.settings.identity),
            plan,
            contributors: minimum.max(self.settings.floors.contributors),
            roster: roster.clone(),
        }));
        run.chain = Some(RoundResult::chain_start(
            run.id,
            &plan,
            &roster.digest(),
            &run.adapter.digest(),
        ));
        info!(members = roster.len(), roster = %roster.digest(), "the roster is pinned");
        let members = roster
            .entries()
            .iter()
            .map(|entry| (entry.name.clone(), entry.identity.fingerprint()))
            .collect();
        self.watch(MemberEvent::Roster {
            members,
            digest: roster.digest(),
        });
        Ok(())
    }

    async fn on_open(
        &mut self,
        link: &mut Link,
        open: Open,
    ) -> Result<Option<SessionEnd>, ParticipantError> {
        if let Some(active) = &self.active
            && active.open == open
        {
            if let Some(keys) = active.keys_again() {
                link.send(&active.message(keys)).await?;
            }
            return Ok(None);
        }
        let Some(run) = &self.run else {
            return Ok(None);
        };
        let Some(context) = &run.context else {
            return Ok(None);
        };
        let (round, attempt, digest) = (open.round, open.attempt, open.digest());
        let factors = run.plan.adapter.factors.factors_in(round);
        let part = run
            .adapter
            .layout()
            .subset(factors)
            .map_err(fedlora_adapter::AdapterError::from)?;
        let aggregation = &run.plan.aggregation;
        let expected = Expectation {
            adapter: run.adapter.digest(),
            layout: part.digest(),
            factors,
            clip: aggregation.clip,
            max_weight: aggregation.max_weight,
            bits: aggregation.bits,
        };
        let task = Task {
            round,
            factors,
            part,
            adapter: run.adapter.clone(),
        };
        let before = self.total_traffic(link);
        let ledger = self.settings.ledger.as_mut();
        match context.open(open.clone(), &expected, ledger, &mut os_rng()) {
            Ok((phase, keys)) => {
                self.watch(MemberEvent::Opened { round, attempt });
                self.active = Some(ActiveRound::new(open, phase, keys.clone(), before));
                self.train(task);
                if self.cuts(CutPoint::Keys) {
                    return Ok(Some(SessionEnd::Cut));
                }
                let message = ToAggregator::Round {
                    open: digest,
                    message: RoundMessage::Keys(keys),
                };
                link.send(&message).await?;
                Ok(None)
            }
            Err(refusal) => {
                self.leave(link, round, digest, refusal).await?;
                Ok(None)
            }
        }
    }

    /// Feeds a message to the round, and sends what comes of it.
    async fn react(
        &mut self,
        link: &mut Link,
        step: impl FnOnce(&mut ActiveRound, &mut Participant) -> Result<Reaction, Refusal>,
    ) -> Result<(), ParticipantError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let (round, digest) = (active.round(), active.digest);
        match step(active, &mut self.settings) {
            Ok(Reaction::Send(message)) => {
                let message = active.message(message);
                Ok(link.send(&message).await?)
            }
            Ok(Reaction::Upload) => {
                self.upload(link);
                Ok(())
            }
            Ok(Reaction::Nothing) => Ok(()),
            Err(refusal) => self.leave(link, round, digest, refusal).await,
        }
    }

    /// Leaves a round: its keys are wiped, the others go on at once. What concerns the whole
    /// run ends the run for this member.
    async fn leave(
        &mut self,
        link: &mut Link,
        round: RoundNumber,
        open: Digest,
        refusal: Refusal,
    ) -> Result<(), ParticipantError> {
        warn!(%round, reason = %refusal, "left the round");
        self.watch(MemberEvent::Left {
            round,
            reason: refusal.to_string(),
        });
        self.active = None;
        let message = RoundMessage::Abstain;
        link.send(&ToAggregator::Round { open, message }).await?;
        match refusal {
            Refusal::Roster { .. }
            | Refusal::Plan { .. }
            | Refusal::Run
            | Refusal::Suite { .. }
            | Refusal::Threshold { .. }
            | Refusal::Minimum { .. }
            | Refusal::Parameter { .. }
            | Refusal::Result { .. }
            | Refusal::ResultSignature => Err(ParticipantError::Refusal(refusal)),
            _ => Ok(()),
        }
    }

    /// Begins to train, unless the round's update is there or on its way already.
    fn train(&mut self, task: Task) {
        let adapter = task.adapter.digest();
        if let Some(training) = &self.training
            && training.round == task.round
            && training.adapter == adapter
        {
            return;
        }
        let round = task.round;
        let (training, keep_going) = Training::begin(round, adapter);
        self.training = Some(training);
        let work = Arc::clone(&self.settings.work);
        let plan = self.run.as_ref().expect("a round is open").plan.clone();
        let (events, internal) = (self.settings.events.clone(), self.internal.clone());
        let gate = Arc::clone(&self.settings.gate);
        tokio::spawn(async move {
            let asked = Instant::now();
            let permit = gate.acquire_owned().await;
            let waited = asked.elapsed();
            let begun = Instant::now();
            let update = tokio::task::spawn_blocking(move || {
                work.update(&plan, &task, &mut |progress| {
                    let _ = events.send(MemberEvent::Training { round, progress });
                    keep_going.load(Ordering::Relaxed)
                })
            })
            .await;
            drop(permit);
            let update = match update {
                Ok(update) => update,
                // The panic's own message is on standard error.
                Err(_) => Err(UpdateError::Panicked),
            };
            // The member is gone where nobody listens.
            let _ = internal.send(Internal::Trained {
                round,
                waited,
                took: begun.elapsed(),
                update,
            });
        });
    }

    async fn on_report(
        &mut self,
        link: &mut Link,
        report: Internal,
    ) -> Result<Option<SessionEnd>, ParticipantError> {
        match report {
            Internal::Trained {
                round,
                waited,
                took,
                update,
            } => {
                let update = match update {
                    Ok(update) => update,
                    Err(UpdateError::Stopped) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                self.watch(MemberEvent::Trained {
                    round,
                    report: update.report(),
                });
                if let Some(active) = &mut self.active {
                    active.add_time(Stage::Wait, waited);
                    active.add_time(Stage::Train, took);
                }
                if let Some(training) = &mut self.training
                    && training.round == round
                {
                    training.update = Some(update);
                }
                self.mask_and_upload(link).await
            }
            Internal::Uploaded {
                open,
                took,
                outcome,
            } => {
                let Some(active) = self.active.as_mut().filter(|round| round.digest == open) else {
                    return Ok(None);
                };
                match outcome {
                    Ok(()) => active.note_uploaded(took),
                    Err(LinkError::Refused { reason }) => {
                        // Taken before, or too late: the survivor list will tell.
                        warn!(round = %active.round(), %reason, "the update was not taken");
                    }
                    // The session ends too; the upload resumes in the next.
                    Err(error) => warn!(round = %active.round(), %error, "the upload broke off"),
                }
                Ok(None)
            }
        }
    }

    async fn mask_and_upload(
        &mut self,
        link: &mut Link,
    ) -> Result<Option<SessionEnd>, ParticipantError> {
        let (Some(active), Some(training)) = (&mut self.active, &self.training) else {
            return Ok(None);
        };
        let Some(update) = training
            .update
            .as_ref()
            .filter(|_| training.round == active.round())
        else {
            return Ok(None);
        };
        let (round, attempt) = (active.open.round, active.open.attempt);
        let settings = &self.settings;
        let masked = active.mask(update, |encoded| {
            if settings.faults.show_encoded {
                let lanes = Arc::new(encoded.lanes().to_vec());
                let _ = settings.events.send(MemberEvent::Encoded {
                    round,
                    attempt,
                    lanes,
                });
            }
        });
        match masked {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.upload(link);
                if self.cuts(CutPoint::Upload) {
                    return Ok(Some(SessionEnd::Cut));
                }
                Ok(None)
            }
            Err(error) => {
                warn!(%round, %error, "the update cannot be encoded");
                let open = active.digest;
                self.active = None;
                let message = RoundMessage::Abstain;
                link.send(&ToAggregator::Round { open, message }).await?;
                Ok(None)
            }
        }
    }

    /// Uploads beside the control stream.
    fn upload(&self, link: &Link) {
        let Some(active) = &self.active else { return };
        let Some(upload) = active.upload.clone() else {
            return;
        };
        let (carrier, open, internal) = (link.carrier(), active.digest, self.internal.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let outcome = carrier
                .upload(open, upload.claim, upload.masked.as_bytes())
                .await;
            let _ = internal.send(Internal::Uploaded {
                open,
                took: begun.elapsed(),
                outcome,
            });
        });
    }

    async fn on_result(
        &mut self,
        link: &mut Link,
        result: Unverified<RoundResult>,
    ) -> Result<(), ParticipantError> {
        let Some(run) = &mut self.run else {
            return Ok(());
        };
        let Some(chain) = run.chain else {
            return Ok(());
        };
        // Sent again after a broken connection.
        if result.claimed().round <= run.last_round {
            return Ok(());
        }
        let mut active = self.active.take();
        if let Some(round) = &mut active {
            round.note_result();
        }
        let aggregator = &self.settings.aggregator;
        let phase = active
            .as_mut()
            .map(|round| std::mem::replace(&mut round.phase, Phase::Out));
        let checked = match phase {
            Some(Phase::Result(phase)) if phase.open().round == result.claimed().round => {
                phase.result(result, aggregator, &chain)
            }
            _ => check_result(result, aggregator, &chain),
        };
        let result = checked.map_err(ParticipantError::Refusal)?;
        run.chain = Some(result.digest());
        run.last_round = result.round;
        let me = run.context.as_ref().map(|context| context.me);
        let took_part = me.is_some_and(|me| result.survivors.contains(&me));
        run.took_part += u32::from(took_part);

        let begun = Instant::now();
        let values = run.adapter.values().len();
        match link.carrier().fetch(result.adapter, values).await {
            Ok(values) => {
                let adapter = Adapter::new(
                    run.adapter.config().clone(),
                    run.adapter.layout().clone(),
                    values,
                )?;
                let got = adapter.digest();
                if got != result.adapter {
                    return Err(ParticipantError::OtherAdapter {
                        got,
                        expected: result.adapter,
                    });
                }
                run.adapter = adapter;
                link.send(&ToAggregator::Fetched {
                    adapter: result.adapter,
                })
                .await?;
            }
            // Another round has been done since: its result follows.
            Err(LinkError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        info!(round = %result.round, survivors = result.survivors.len(), took_part, "the round is done");
        self.training = None;
        let total = self.total_traffic(link);
        let before = active.as_ref().map_or(total, |round| round.traffic_before);
        let mut times = active.map(|round| round.times).unwrap_or_default();
        *times.entry(Stage::Fetch).or_default() += begun.elapsed();
        self.watch(MemberEvent::RoundDone(RoundReport {
            round: result.round,
            survivors: result.survivors.len(),
            took_part,
            traffic: Traffic {
                sent: total.sent - before.sent,
                received: total.received - before.received,
            },
            seconds: times.into_iter().collect(),
        }));
        Ok(())
    }

    fn outcome(self) -> Result<Outcome, ParticipantError> {
        let run = self.run.ok_or(ParticipantError::Nothing)?;
        if run.last_round == RoundNumber(0) {
            return Err(ParticipantError::Nothing);
        }
        Ok(Outcome {
            run: run.id,
            base_name: run.plan.base.name,
            adapter: run.adapter,
            rounds: run.last_round.0,
            took_part: run.took_part,
        })
    }

    fn cuts(&self, point: CutPoint) -> bool {
        self.active
            .as_ref()
            .is_some_and(|round| self.settings.faults.cut_here(round.round(), point))
    }

    /// How long a member that was cut off stays away.
    fn time_away(&self) -> Duration {
        let reconnect = self
            .run
            .as_ref()
            .map_or(0, |run| run.plan.timeouts.reconnect);
        Duration::from_secs(reconnect) + Duration::from_millis(500)
    }

    fn add_traffic(&mut self, traffic: Traffic) {
        self.traffic.sent += traffic.sent;
        self.traffic.received += traffic.received;
    }

    fn total_traffic(&self, link: &Link) -> Traffic {
        let traffic = link.traffic();
        Traffic {
            sent: self.traffic.sent + traffic.sent,
            received: self.traffic.received + traffic.received,
        }
    }

    fn watch(&self, event: MemberEvent) {
        // Nobody need watch.
        let _ = self.settings.events.send(event);
    }
}
