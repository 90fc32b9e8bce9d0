//! One attempt at a round: inputs in, effects carried out.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fedlora_adapter::Layout;
use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::AUXILIARY_LANES;
use fedlora_protocol::ids::{MemberIndex, MemberName};
use fedlora_protocol::round::coordinator::{Completed, Coordinator, Effect, Event, Input};
use fedlora_protocol::secagg::{RunningSum, pack};
use fedlora_protocol::wire::messages::{PhaseName, RoundFailure, ToAggregator, ToMember};
use tracing::{info, warn};

use super::rounds::{Engine, RunFailure};
use super::{RunEvent, ToEngine};
use crate::publish::{self, Outcome};
use crate::status::RunState;
use fedlora_common::bytes::f32_to_le;
use fedlora_shell::now;

/// The round at hand.
#[derive(Debug)]
pub(super) struct RoundAtHand {
    pub(super) coordinator: Coordinator,
    pub(super) part: Layout,
    pub(super) sum: RunningSum,
    /// When the round was opened.
    pub(super) opened: Timestamp,
}

/// How a round ended.
pub(super) enum RoundEnd {
    Done,
    Failed(RoundFailure),
}

impl Engine {
    /// Deals with one message from a session.
    pub(super) async fn handle(
        &mut self,
        message: ToEngine,
    ) -> Result<Option<RoundEnd>, RunFailure> {
        match message {
            ToEngine::UploadBegins {
                member,
                open,
                length,
                reply,
            } => {
                let _ = reply.send(self.admit_upload(&member, &open, length));
                Ok(None)
            }
            ToEngine::Uploaded {
                member,
                open,
                claim,
                reply,
            } => {
                let Some(from) = self.index_of(&member) else {
                    let _ = reply.send(Err("you are not on this run's roster".into()));
                    return Ok(None);
                };
                if let Err(error) = self.check_upload(from).await {
                    let _ = reply.send(Err(error.to_string()));
                    return Ok(None);
                }
                match self.decide(Some(from), Input::Uploaded { from, open, claim }) {
                    Ok(event) => {
                        let end = self.advance(event).await;
                        let _ = reply.send(Ok(()));
                        end
                    }
                    Err(reason) => {
                        let _ = reply.send(Err(reason));
                        Ok(None)
                    }
                }
            }
            other => {
                let Some((member, message)) = self.common(other) else {
                    return Ok(None);
                };
                let Some(from) = self.index_of(&member) else {
                    self.links.send(&member, Self::not_on_the_roster());
                    return Ok(None);
                };
                match message {
                    ToAggregator::Round { open, message } => {
                        let input = Input::Message {
                            from,
                            open,
                            message,
                        };
                        match self.decide(Some(from), input) {
                            Ok(event) => self.advance(event).await,
                            Err(_) => Ok(None),
                        }
                    }
                    ToAggregator::Ready(_) => {
                        self.welcome_back(&member, from);
                        Ok(None)
                    }
                    ToAggregator::Fetched { .. } => Ok(None),
                }
            }
        }
    }

    /// Closes phases whose time is up, and goes on without members that stay away.
    pub(super) async fn pass_time(&mut self) -> Result<Option<RoundEnd>, RunFailure> {
        if let Ok(event) = self.decide(None, Input::Tick)
            && let Some(end) = self.advance(event).await?
        {
            return Ok(Some(end));
        }
        let patience = Duration::from_secs(self.setup.plan.timeouts.reconnect);
        let opened = self.round().opened;
        let absent: Vec<MemberIndex> = self
            .round()
            .coordinator
            .awaited()
            .into_iter()
            .filter(|member| {
                self.name_of(*member)
                    .and_then(|name| self.links.broken_since(&name))
                    // Who was away before gets the same time to come back for this round.
                    .is_some_and(|since| since.max(opened).after(patience) <= now())
            })
            .collect();
        for member in absent {
            if let Ok(event) = self.decide(None, Input::Absent { member }) {
                warn!(%member, "the member stays away; the round goes on without it");
                if let Some(end) = self.advance(event).await? {
                    return Ok(Some(end));
                }
            }
        }
        Ok(None)
    }

    /// Judges an input. What is wrong with a member's message is logged.
    fn decide(&self, from: Option<MemberIndex>, input: Input) -> Result<Event, String> {
        self.round()
            .coordinator
            .decide(now(), input)
            .map_err(|reject| {
                let reason = reject.to_string();
                if let Some(member) = from {
                    warn!(%member, %reason, "a message was not taken");
                    self.watch(RunEvent::Rejected {
                        member,
                        reason: reason.clone(),
                    });
                }
                reason
            })
    }

    /// Applies an event and carries its effects out.
    async fn advance(&mut self, event: Event) -> Result<Option<RoundEnd>, RunFailure> {
        let running = self.running.as_mut().expect("a round is at hand");
        let RoundAtHand {
            coordinator,
            part,
            sum,
            opened,
        } = running.round.take().expect("a round is at hand");
        let before = coordinator.phase();
        let (coordinator, effects) = coordinator.apply(event);
        let after = coordinator.phase();
        let round = coordinator.setup().open().round;
        running.round = Some(RoundAtHand {
            coordinator,
            part,
            sum,
            opened,
        });
        if let Some(phase) = after.filter(|_| before != after) {
            info!(run = %self.setup.run, %round, %phase, "the phase begins");
            self.watch(RunEvent::Phase { round, phase });
            self.write_status(RunState::Running, None);
        }
        self.carry_out(effects).await
    }

    pub(super) async fn carry_out(
        &mut self,
        effects: Vec<Effect>,
    ) -> Result<Option<RoundEnd>, RunFailure> {
        for effect in effects {
            match effect {
                Effect::Send(member, message) => {
                    if let Some(name) = self.name_of(member) {
                        self.links.send(&name, message);
                    }
                }
                Effect::Accumulate(member) => {
                    if let Err(error) = self.accumulate(member).await {
                        warn!(%member, %error, "a stored update cannot be added");
                        return Ok(Some(RoundEnd::Failed(RoundFailure::Storage)));
                    }
                }
                Effect::Unmask(completed) => return self.complete(*completed).map(Some),
                Effect::Fail(reason) => return Ok(Some(RoundEnd::Failed(reason))),
            }
        }
        Ok(None)
    }

    /// Checks that a stored update can be added, before its sender counts as a survivor.
    async fn check_upload(&self, member: MemberIndex) -> std::io::Result<()> {
        let packed = tokio::fs::read(self.upload_path(member)).await?;
        let sum = &self.round().sum;
        tokio::task::block_in_place(|| sum.check(&packed)).map_err(std::io::Error::other)
    }

    /// Adds a stored update to the running sum.
    async fn accumulate(&mut self, member: MemberIndex) -> std::io::Result<()> {
        let packed = tokio::fs::read(self.upload_path(member)).await?;
        let round = self.round_mut();
        tokio::task::block_in_place(|| round.sum.add(&packed)).map_err(std::io::Error::other)
    }

    /// Takes the masks off, applies the mean, publishes the result.
    fn complete(&mut self, completed: Completed) -> Result<RoundEnd, RunFailure> {
        let running = self.running.as_mut().expect("a round is at hand");
        let RoundAtHand {
            coordinator,
            part,
            sum,
            ..
        } = running.round.take().expect("a round is at hand");
        let outcome = Outcome {
            survivors: completed.survivors,
            dropped: completed.dropped,
            transcript: completed.transcript,
        };
        let rate = self.setup.plan.aggregation.server_learning_rate;
        let sum = tokio::task::block_in_place(|| sum.unmask(completed.unmasking));
        let (adapter, mean) =
            match publish::apply(&running.adapter, &part, &self.format, &sum, rate) {
                Ok(applied) => applied,
                Err(error) => {
                    warn!(%error, "the unmasked sum is unusable");
                    return Ok(RoundEnd::Failed(RoundFailure::Sum));
                }
            };
        let verified = publish::sign_result(
            coordinator.setup().open(),
            outcome,
            &adapter,
            &mean,
            running.chain,
            &self.setup.operator.identity,
        );
        let unverified = verified.unverified().clone();
        let folder = tokio::task::block_in_place(|| {
            publish::store(
                &self.setup.directory,
                &adapter,
                &self.setup.plan.base.name,
                &unverified,
            )
        })?;
        let result = verified.into_body();
        running.chain = result.digest();
        running.adapter_bytes = Arc::new(f32_to_le(adapter.values()));
        running.adapter = adapter;
        running.results.push(unverified.clone());
        info!(
            run = %self.setup.run, round = %result.round, survivors = result.survivors.len(),
            weight = result.total_weight, adapter = %result.adapter, "the round is done"
        );
        for entry in running.roster.entries() {
            self.links
                .send(&entry.name, ToMember::Result(unverified.clone()));
        }
        for member in &result.survivors {
            if let Some(entry) = running.roster.get(*member) {
                *self.rounds_by_member.entry(entry.name.clone()).or_default() += 1;
            }
        }
        self.rounds_done += 1;
        self.watch(RunEvent::RoundDone {
            result,
            sum: Arc::new(sum),
            folder,
        });
        self.write_status(RunState::Running, None);
        Ok(RoundEnd::Done)
    }

    /// Says where a member may store its update, while one is awaited from it.
    fn admit_upload(
        &self,
        member: &MemberName,
        open: &Digest,
        length: u64,
    ) -> Result<PathBuf, String> {
        let round = self.round();
        let setup = round.coordinator.setup();
        let awaited = self
            .index_of(member)
            .filter(|from| round.coordinator.awaited().contains(from))
            .ok_or("no update is awaited from you")?;
        if round.coordinator.phase() != Some(PhaseName::Updates) || open != setup.digest() {
            return Err("the update is not of the round at hand".into());
        }
        let lanes = round.part.len() + AUXILIARY_LANES;
        let expected = pack::packed_len(setup.open().bits, lanes) as u64;
        if length != expected {
            return Err(format!(
                "a masked update of this round takes {expected} bytes, not {length}"
            ));
        }
        Ok(self.upload_path(awaited))
    }

    /// Brings a member that came back up to date.
    fn welcome_back(&mut self, member: &MemberName, from: MemberIndex) {
        let Some(running) = &self.running else { return };
        self.links
            .send(member, ToMember::Roster(running.roster.as_ref().clone()));
        self.send_results(member);
        for message in self.round().coordinator.outstanding(from) {
            self.links.send(member, message);
        }
    }

    pub(super) fn clear_uploads(&self) {
        let folder = self.setup.directory.uploads();
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        for file in files {
            if let Err(error) = fs::remove_file(file.path()) {
                warn!(%error, "a masked update that is no longer needed cannot be removed");
            }
        }
    }

    fn upload_path(&self, member: MemberIndex) -> PathBuf {
        let open = self.round().coordinator.setup().open();
        self.setup.directory.uploads().join(format!(
            "round-{:04}-attempt-{}-member-{}.masked",
            open.round.0, open.attempt.0, member.0
        ))
    }

    fn round(&self) -> &RoundAtHand {
        self.running
            .as_ref()
            .and_then(|running| running.round.as_ref())
            .expect("a round is at hand")
    }

    fn round_mut(&mut self) -> &mut RoundAtHand {
        self.running
            .as_mut()
            .and_then(|running| running.round.as_mut())
            .expect("a round is at hand")
    }

    fn index_of(&self, member: &MemberName) -> Option<MemberIndex> {
        self.running.as_ref()?.roster.index_of(member)
    }

    fn name_of(&self, member: MemberIndex) -> Option<MemberName> {
        let running = self.running.as_ref()?;
        Some(running.roster.get(member)?.name.clone())
    }
}
