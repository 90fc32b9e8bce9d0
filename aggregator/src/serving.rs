//! An aggregator that lets members in, and the runs that it carries out one after the other.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::{RunPlan, SignedPlan};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::adapters::StartingAdapter;
use crate::audit::{self, AuditError, KeptRun, OpenRun, RecordFolder};
use crate::clock::Clock;
use crate::daemon::ServeError;
use crate::directory::{Directory, DirectoryError, Opened};
use crate::engine::{Engine, EngineSetup, RunEvent, RunFailure, RunSummary};
use crate::operators::{self, ActKind, Ledger, OperatorsError};
use crate::registry::Registry;
use crate::run_directory::{EndOutcome, RunDirectory, RunEnding, ended_by_operator};
use crate::server::front::{CurrentRun, FrontControl};

/// How often to look for another plan, and for the wish that a run end.
const TICK: Duration = Duration::from_secs(1);
/// The pause before a run that stands still is tried again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// An aggregator whose endpoints are served.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) directory: Directory,
    pub(crate) operator: Arc<Opened>,
    pub(crate) registry: Registry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) front: FrontControl,
    pub(crate) stop: oneshot::Sender<&'static str>,
    pub(crate) enrolment: JoinHandle<()>,
    pub(crate) sessions: JoinHandle<()>,
    /// No other process serves the directory meanwhile.
    pub(crate) _lock: File,
}

/// A run that can be carried out.
#[derive(Debug)]
pub(crate) struct BegunRun {
    run: RunId,
    plan: RunPlan,
    directory: RunDirectory,
    record: RecordFolder,
    /// What its record says, where an aggregator has left it.
    kept: Option<KeptRun>,
}

impl BegunRun {
    /// A run of which no member has heard.
    ///
    /// # Errors
    /// The folder that cannot be made.
    pub(crate) fn new(
        operator: &Directory,
        run: RunId,
        plan: RunPlan,
        keep_for_audit: bool,
    ) -> Result<Self, DirectoryError> {
        let directory = operator.create_run(run)?;
        Ok(Self {
            run,
            plan,
            record: RecordFolder::new(&directory, keep_for_audit),
            directory,
            kept: None,
        })
    }

    /// A run that an aggregator has left.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub(crate) fn taken_up(open: OpenRun) -> Result<Self, AuditError> {
        let kept = Some(open.read()?);
        Ok(Self {
            run: open.run,
            plan: open.plan,
            directory: open.directory,
            record: open.record,
            kept,
        })
    }
}

impl Serving {
    /// Carries out a run, from gathering the members to the last round, or from where it was left.
    ///
    /// # Errors
    /// [`ServeError`]; members that are connected have been told where the run is over.
    pub(crate) async fn carry_out(
        &self,
        begun: BegunRun,
        events: mpsc::UnboundedSender<RunEvent>,
    ) -> Result<RunSummary, ServeError> {
        let BegunRun {
            run,
            plan,
            directory,
            record,
            kept,
        } = begun;
        let current = CurrentRun {
            run,
            plan: SignedPlan::sign(run, plan.clone(), &self.operator.identity),
        };
        let start = match &kept {
            Some(_) => None,
            None => match StartingAdapter::of(self.directory.store(), &plan) {
                Ok(start) => start.map(|start| Arc::new(start.into_adapter())),
                Err(error) => {
                    self.keep_end(run, &directory, EndOutcome::Failed, error.to_string());
                    return Err(error.into());
                }
            },
        };
        let setup = EngineSetup {
            run,
            plan,
            start,
            federation: self.operator.config.federation.clone(),
            operator: Arc::clone(&self.operator),
            registry: self.registry.clone(),
            directory: directory.clone(),
            record: record.clone(),
            status: self.directory.status_path(),
            events,
            clock: Arc::clone(&self.clock),
        };
        let messages = self.front.begin(current).await;
        let engine = Engine::new(setup, messages).map(|engine| match kept {
            Some(kept) => engine.taking_up(kept),
            None => engine,
        });
        let engine = match engine {
            Ok(engine) => engine,
            Err(error) => {
                self.keep_end(run, &directory, EndOutcome::Failed, error.to_string());
                self.front.end().await;
                return Err(error.into());
            }
        };
        info!(%run, "waiting for members");
        let (outcome, aborted) = self.until_over(engine, &directory).await;
        match (&outcome, aborted) {
            // It goes on the next time.
            (Err(failure), None) if !failure.is_final() => {}
            (Err(failure), Some(reason)) if !failure.is_final() => {
                self.keep_end(run, &directory, EndOutcome::Aborted, reason);
                if let Err(error) = audit::close(&directory, &record) {
                    warn!(%run, %error, "the record of the run cannot be closed");
                }
            }
            // The engine has kept how it ended.
            _ => self.leave_queue(run),
        }
        self.front.end().await;
        Ok(outcome?)
    }

    /// Runs the engine; ends it early where the operator asks for that, and gives the reason then.
    async fn until_over(
        &self,
        engine: Engine,
        directory: &RunDirectory,
    ) -> (Result<RunSummary, RunFailure>, Option<String>) {
        let mut engine = std::pin::pin!(engine.run());
        let mut tick = tokio::time::interval(TICK);
        let mut aborted = None;
        loop {
            tokio::select! {
                outcome = &mut engine => return (outcome, aborted),
                _ = tick.tick(), if aborted.is_none() => {
                    if let Some(reason) = directory.asked_to_end() {
                        let told = ended_by_operator(&reason);
                        warn!(%reason, "the operator ends the run");
                        self.front.abort(told.clone()).await;
                        aborted = Some(told);
                    }
                }
            }
        }
    }

    /// Keeps how a run ended early. It is over whether this can be written or not.
    fn keep_end(&self, run: RunId, directory: &RunDirectory, outcome: EndOutcome, failure: String) {
        let end = RunEnding {
            outcome,
            failure: Some(failure),
            at: self.clock.now(),
        };
        if let Err(error) = directory.store_end(&end) {
            warn!(%run, %error, "how the run ended cannot be kept");
        }
        self.leave_queue(run);
    }

    fn leave_queue(&self, run: RunId) {
        if let Err(error) = self.directory.queue().remove(run) {
            warn!(%run, %error, "the run's plan stays in the queue");
        }
    }

    /// Carries out all runs, for ever: first what is not over, then the queue.
    pub(crate) async fn carry_out_all(
        &self,
        events: mpsc::UnboundedSender<RunEvent>,
    ) -> Infallible {
        let mut set_aside = BTreeSet::new();
        let (first, longest) = PAUSE;
        let mut pause = first;
        loop {
            let next = match self.next(&mut set_aside) {
                Ok(Some(next)) => next,
                Ok(None) => {
                    tokio::time::sleep(TICK).await;
                    continue;
                }
                Err(error) => {
                    error!(%error, "no run can be begun; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                    continue;
                }
            };
            let run = next.run;
            match self.carry_out(next, events.clone()).await {
                Ok(summary) => {
                    let (rounds, adapter) = (summary.end.rounds, summary.folder.display());
                    info!(%run, rounds, %adapter, "the run is finished");
                    pause = first;
                }
                Err(ServeError::Run(RunFailure::TakeUp(error))) if !error.may_pass() => {
                    error!(%run, %error, "the run cannot be taken up: it is set aside until the next start");
                    set_aside.insert(run);
                }
                Err(ServeError::Run(failure)) if !failure.is_final() => {
                    // An aborted run is over all the same.
                    if self.is_over(run) {
                        continue;
                    }
                    let seconds = pause.as_secs();
                    error!(%run, error = %failure, seconds, "the run stands still; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                Err(error) => error!(%run, %error, "the run has failed"),
            }
        }
    }

    fn is_over(&self, run: RunId) -> bool {
        let directory = RunDirectory::of(self.directory.store(), run);
        directory.is_some_and(|directory| matches!(directory.end(), Ok(Some(_))))
    }

    /// The run to carry out next, if there is one.
    fn next(&self, set_aside: &mut BTreeSet<RunId>) -> Result<Option<BegunRun>, ServeError> {
        let store = self.directory.store();
        for open in audit::open_runs(store)? {
            let run = open.run;
            if let Some(reason) = open.directory.asked_to_end() {
                open.give_up(&ended_by_operator(&reason), self.clock.now())?;
                self.leave_queue(run);
                continue;
            }
            if set_aside.contains(&run) {
                continue;
            }
            match BegunRun::taken_up(open) {
                Ok(begun) => return Ok(Some(begun)),
                Err(error) if error.may_pass() => return Err(error.into()),
                Err(error) => {
                    error!(%run, %error, "the run cannot be read: it is set aside until the next start");
                    set_aside.insert(run);
                }
            }
        }
        let queue = self.directory.queue();
        let unreadable = |source| queue_error(queue.path_of_folder(), source);
        // Read after the queue, so that it has the line of every plan there; and once for all of them.
        let ledger = OnceCell::new();
        for queued in queue.plans().map_err(unreadable)? {
            let run = queued.run;
            if set_aside.contains(&run) {
                continue;
            }
            if self.is_over(run) {
                // The aggregator stopped just then.
                queue.remove(run).map_err(unreadable)?;
                continue;
            }
            // Members have signed results of it: it is not begun again.
            let begun = RunDirectory::of(store, run);
            let unreadable_run = |begun: &RunDirectory| {
                RecordFolder::of_open_run(begun).is_some() || begun.end().is_err()
            };
            if begun.as_ref().is_some_and(unreadable_run) {
                error!(%run, "the run cannot be read: it is set aside until the next start");
                set_aside.insert(run);
                continue;
            }
            // Withdrawn just now: it is not looked at.
            let Some(content) = queue.content(run).map_err(unreadable)? else {
                continue;
            };
            if let Err(error) = self.check_approved(run, &content, &ledger) {
                error!(%run, %error, "the plan is not carried out: it is set aside until the next start");
                set_aside.insert(run);
                continue;
            }
            let (plan, keep) = (queued.plan, queued.keep_for_audit);
            let begun = BegunRun::new(&self.directory, run, plan, keep)?;
            // Whoever withdraws a plan removes it first, and looks for its run then.
            if queue.contains(run) {
                return Ok(Some(begun));
            }
        }
        Ok(None)
    }

    /// Checks that two operators approved a plan in the queue, where that is needed.
    fn check_approved(
        &self,
        run: RunId,
        content: &[u8],
        ledger: &OnceCell<Ledger>,
    ) -> Result<(), OperatorsError> {
        let ledger = match ledger.get() {
            Some(ledger) => ledger,
            None => {
                let identity = self.operator.identity.public();
                let read = operators::of_directory(&self.directory, &identity)?;
                ledger.get_or_init(|| read)
            }
        };
        ledger.check(ActKind::Plans, &format!("queue/{run}.json"), content)
    }

    /// Ends all connections, and tells their members why.
    pub(crate) async fn stop(self, reason: &'static str) {
        self.enrolment.abort();
        let _ = self.stop.send(reason);
        let _ = self.sessions.await;
    }
}

fn queue_error(path: &Path, source: io::Error) -> ServeError {
    let path = PathBuf::from(path);
    ServeError::Queue { path, source }
}
