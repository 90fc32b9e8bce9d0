//! The last phase: the members hear how the run ended, and fetch the last adapter.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::plan::RunEnd;
use fedlora_protocol::wire::messages::{PhaseName, ToAggregator, ToMember};
use tracing::{debug, warn};

use super::chain::{AdapterChain, RunResult};
use super::cohort::ReadyMembers;
use super::context::{RETURN, RunContext, TICK};
use super::failure::RunFailure;
use super::messages::ToEngine;
use super::progress::Progress;
use super::refusal::UploadRefusal;
use crate::run_directory::{EndOutcome, RunEnding};
use crate::status::RunState;
use crate::{audit, blocking};

/// How long members may take to fetch the last adapter.
const MAX_FAREWELL: Duration = Duration::from_secs(60);

/// How far the run had come when it ended.
#[derive(Debug)]
pub(super) enum Reached {
    /// The cohort was never complete.
    Gathering(ReadyMembers),
    /// At least the first round was opened.
    Rounds {
        chain: Box<AdapterChain>,
        /// The phase in which the last round failed; `None` after the plan's last round.
        phase: Option<PhaseName>,
    },
}

/// What a run came to that ended without a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run's identifier.
    pub run: RunId,
    /// How far it came, and which adapter is its result.
    pub end: RunEnd,
    /// That adapter.
    pub adapter: Digest,
    /// Its folder.
    pub folder: PathBuf,
}

impl RunSummary {
    fn of(context: &RunContext, chain: &AdapterChain) -> Self {
        let RunResult { round, adapter } = chain.result();
        Self {
            run: context.setup.run,
            end: RunEnd {
                planned: context.setup.plan.rounds,
                rounds: chain.newest().0,
                best: round,
            },
            adapter,
            folder: context.setup.directory.adapter(round.0),
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Farewell {
    context: RunContext,
    reached: Reached,
    outcome: Result<(), RunFailure>,
}

impl Farewell {
    /// After the last round of the plan, or of its patience.
    pub(super) fn finished(context: RunContext, chain: AdapterChain) -> Self {
        Self {
            context,
            reached: Reached::Rounds {
                chain: Box::new(chain),
                phase: None,
            },
            outcome: Ok(()),
        }
    }

    /// After a failure that ends the run.
    pub(super) fn failed(context: RunContext, reached: Reached, failure: RunFailure) -> Self {
        Self {
            context,
            reached,
            outcome: Err(failure),
        }
    }

    /// Tells the members, and waits until those that are connected hold the last adapter or have
    /// gone.
    ///
    /// # Errors
    /// The failure that ended the run.
    pub(super) async fn see_off(mut self) -> Result<RunSummary, RunFailure> {
        if self.goes_on() {
            // Members see the connection end, and try again until the run is taken up.
            let Self {
                mut context,
                reached,
                outcome,
            } = self;
            // What stands still says why; what was stopped has no failure.
            let why = match &outcome {
                Err(RunFailure::Stopped) | Ok(()) => None,
                Err(failure) => Some(failure.to_string()),
            };
            match &reached {
                Reached::Gathering(ready) => {
                    let recorded = context.recorded();
                    let mut progress = ready.progress(&recorded, None);
                    progress.failure = why;
                    context.write_status(progress);
                }
                Reached::Rounds { chain, phase } => {
                    context.write_status(chain.progress(RunState::Running, why, *phase));
                }
            }
            return match outcome {
                Err(failure) => Err(failure),
                Ok(()) => Err(RunFailure::Stopped),
            };
        }
        self.write_status();
        if self.outcome.is_err() {
            self.end_record();
        }
        self.context.links.broadcast(&self.finished_message());
        self.wait_for_members().await;
        if self.outcome.is_ok() {
            self.end_record();
        }
        let Self {
            context,
            reached,
            outcome,
        } = self;
        match (outcome, reached) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Reached::Gathering(_)) => Err(RunFailure::Stopped),
            (Ok(()), Reached::Rounds { chain, .. }) => Ok(RunSummary::of(&context, &chain)),
        }
    }

    /// Whether the run is not over, and the same command takes it up.
    fn goes_on(&self) -> bool {
        matches!(&self.outcome, Err(failure) if !failure.is_final())
    }

    /// The run is over: nobody takes it up again.
    fn end_record(&self) {
        let setup = &self.context.setup;
        let end = RunEnding {
            outcome: match self.outcome {
                Ok(()) => EndOutcome::Finished,
                Err(_) => EndOutcome::Failed,
            },
            failure: self.failure(),
            at: setup.clock.now(),
        };
        // In this order: what has an end is not taken up, whatever its record says.
        if let Err(error) = blocking::in_place(|| setup.directory.store_end(&end)) {
            warn!(%error, "how the run ended cannot be kept");
        }
        if let Err(error) = blocking::in_place(|| audit::close(&setup.directory, &setup.record)) {
            warn!(%error, "the record of the run cannot be closed");
        }
    }

    async fn wait_for_members(&mut self) {
        let deadline = self.context.now().after(MAX_FAREWELL);
        let mut away = self.lately_away();
        while self.context.links.count() > 0 || !away.is_empty() {
            let now = self.context.now();
            away.retain(|_, until| now < *until);
            if now >= deadline {
                return;
            }
            match tokio::time::timeout(TICK, self.context.inbox.recv()).await {
                Ok(Some(message)) => {
                    self.context.note(&message);
                    self.handle(message, &mut away);
                }
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    fn handle(&mut self, message: ToEngine, away: &mut BTreeMap<MemberName, Timestamp>) {
        match message {
            ToEngine::Connected {
                member,
                session,
                outbox,
                ..
            } => {
                away.remove(&member);
                self.context.connect(member.clone(), session, outbox);
                // It was away when the run ended: it follows the chain and leaves.
                if let Reached::Rounds { chain, .. } = &self.reached {
                    chain.bring_up_to_date(&self.context.links, &member);
                }
                self.context.links.send(&member, self.finished_message());
            }
            ToEngine::Disconnected {
                member, session, ..
            } => {
                self.context.disconnect(&member, session);
                if let Reached::Gathering(ready) = &mut self.reached {
                    ready.forget(&member);
                }
                self.write_status();
            }
            ToEngine::FetchAdapter { adapter, reply } => {
                let held = match &self.reached {
                    Reached::Gathering(_) => self.context.start(&adapter),
                    Reached::Rounds { chain, .. } => chain.fetch(&self.context, &adapter),
                };
                let _ = reply.send(held);
            }
            ToEngine::UploadBegins { reply, .. } => {
                let _ = reply.send(Err(UploadRefusal::NoRound));
            }
            ToEngine::Uploaded { reply, .. } => {
                let _ = reply.send(Err(UploadRefusal::NoRound));
            }
            ToEngine::Moved { .. } | ToEngine::OwnCertificate { .. } => {}
            ToEngine::Message { member, message } => {
                // It closes its connection next. Anything else comes too late.
                if let ToAggregator::Fetched { adapter } = *message {
                    debug!(%member, %adapter, "the member holds the adapter");
                }
            }
        }
    }

    /// The members whose connection broke so lately that they may still come back for the last
    /// adapter, with how long each is waited for.
    fn lately_away(&self) -> BTreeMap<MemberName, Timestamp> {
        let Reached::Rounds { chain, .. } = &self.reached else {
            return BTreeMap::new();
        };
        let reconnect = Duration::from_secs(self.context.setup.plan.timeouts.reconnect);
        chain
            .roster
            .entries()
            .iter()
            .filter_map(|entry| {
                let since = self.context.links.broken_since(&entry.name)?;
                Some((entry.name.clone(), since.after(reconnect + RETURN)))
            })
            .collect()
    }

    fn finished_message(&self) -> ToMember {
        ToMember::Finished {
            failure: self.failure(),
        }
    }

    fn failure(&self) -> Option<String> {
        self.outcome.as_ref().err().map(ToString::to_string)
    }

    fn write_status(&mut self) {
        let failure = self.failure();
        let state = match failure {
            None => RunState::Finished,
            Some(_) => RunState::Failed,
        };
        let progress = match &self.reached {
            Reached::Gathering(ready) => Progress {
                state,
                failure,
                ..ready.progress(&self.context.recorded(), None)
            },
            Reached::Rounds { chain, phase } => chain.progress(state, failure, *phase),
        };
        self.context.write_status(progress);
    }
}
