//! The phase of the rounds: opens one after another until the plan is carried out.

use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
use fedlora_protocol::wire::messages::{PhaseName, RoundFailure};
use fedlora_shell::SPANS;
use tracing::{Instrument as _, Span, field, info_span};

use super::chain::AdapterChain;
use super::closed_round::{AttemptFailure, RoundOutcome, end_run};
use super::context::RunContext;
use super::current_round::{run_round, take_up_round};
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use super::returning;
use crate::audit::BegunAttempt;
use crate::blocking;
use crate::publish;

/// Attempts at one round before the run is given up.
const MAX_ATTEMPTS: u32 = 3;

/// A run whose cohort is complete, between two rounds.
#[derive(Debug)]
pub(super) struct Running {
    context: RunContext,
    chain: AdapterChain,
    /// The attempt that the run was at, where it was taken up in one.
    begun: Option<BegunAttempt>,
    /// Whether an aggregator had left it.
    taken_up: bool,
}

impl Running {
    /// The run before its first round.
    pub(super) fn new(context: RunContext, chain: AdapterChain) -> Self {
        Self {
            context,
            chain,
            begun: None,
            taken_up: false,
        }
    }

    /// The run that an aggregator left, at this attempt or between two rounds.
    pub(super) fn taken_up(
        context: RunContext,
        chain: AdapterChain,
        begun: Option<BegunAttempt>,
    ) -> Self {
        Self {
            context,
            chain,
            begun,
            taken_up: true,
        }
    }

    /// Runs all rounds of the plan, or as many as its patience allows.
    pub(super) async fn run_rounds(self) -> Farewell {
        let Self {
            mut context,
            mut chain,
            mut begun,
            taken_up,
        } = self;
        let last = RoundNumber(context.setup.plan.rounds);
        let mut round = RoundNumber(chain.newest().0 + 1);
        let mut attempt = begun.as_ref().map_or(Attempt(1), BegunAttempt::attempt);
        // Members that have a while to come back are waited for at the end as well.
        if taken_up {
            let now = context.now();
            context.go_on_from(now, &chain.roster);
        }
        while round <= last && !chain.has_stopped() {
            // An attempt that was left is replayed first: it may need nobody.
            if taken_up
                && begun.is_none()
                && let Err(failure) = returning::wait(&mut context, &chain).await
            {
                return *end_run(context, chain, None, failure);
            }
            let span = round_span(context.setup.run, round, attempt);
            let closed = match begun.take() {
                Some(begun) => {
                    let taken_up = take_up_round(context, chain, begun);
                    taken_up.instrument(span.clone()).await
                }
                None => {
                    let begun = run_round(context, chain, round, attempt);
                    begun.instrument(span.clone()).await
                }
            };
            let came_to = match &closed {
                Ok(closed) if matches!(closed.outcome, RoundOutcome::Done) => "done",
                Ok(_) => "failed",
                Err(_) => "over",
            };
            span.record("outcome", came_to);
            drop(span);
            let closed = match closed {
                Ok(closed) => closed,
                Err(farewell) => return *farewell,
            };
            (context, chain) = (closed.context, closed.chain);
            match closed.outcome {
                RoundOutcome::Done => {
                    round = RoundNumber(round.0 + 1);
                    attempt = Attempt(1);
                }
                RoundOutcome::Failed(AttemptFailure { reason, .. })
                    if may_retry(reason) && attempt.0 < most_attempts(reason) =>
                {
                    attempt = Attempt(attempt.0 + 1);
                }
                RoundOutcome::Failed(AttemptFailure { reason, phase }) => {
                    let said = chain.roster.naming(&reason.to_string());
                    let failure = RunFailure::Round {
                        round,
                        reason,
                        said,
                    };
                    let reached = Reached::Rounds {
                        chain: Box::new(chain),
                        phase,
                    };
                    return Farewell::failed(context, reached, failure);
                }
            }
        }
        // Rounds' adapters are on the disk; the first one only where it is the result.
        let stored = blocking::in_place(|| {
            let (directory, base) = (&context.setup.directory, &context.setup.plan.base);
            let Some(first) = chain.first_as_result(&context)? else {
                return Ok(());
            };
            publish::store_first(directory, &first, &base.name).map(drop)
        });
        if let Err(error) = stored {
            return *end_run(context, chain, None, error.into());
        }
        Farewell::finished(context, chain)
    }
}

/// What a collector of traces gets of an attempt at a round. A run takes too long for a span of its own.
fn round_span(run: RunId, round: RoundNumber, attempt: Attempt) -> Span {
    info_span!(
        target: SPANS, parent: None, "round", %run, %round, %attempt, outcome = field::Empty
    )
}

/// Whether a failed round may be tried again. Once shares may have been revealed, the members must
/// not be asked for the same round's update again.
fn may_retry(reason: RoundFailure) -> bool {
    !matches!(
        reason,
        RoundFailure::Recovery
            | RoundFailure::Deal { .. }
            | RoundFailure::Sum
            | RoundFailure::Quorum {
                phase: PhaseName::Reveal,
                ..
            }
    )
}

/// How many attempts a round gets. Contributors to a beacon that do not open it are not asked
/// again, so that ends sooner than the attempts that members take part in.
fn most_attempts(reason: RoundFailure) -> u32 {
    match reason {
        RoundFailure::Beacon { .. } => fedlora_protocol::secagg::MAX_ATTEMPTS,
        _ => MAX_ATTEMPTS,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use fedlora_adapter::{Adapter, Factor, Layout, ProjectionTensor, Target, TensorSpec, peft};
    use fedlora_common::clock::Timestamp;
    use fedlora_common::digest::Digest;
    use fedlora_protocol::crypto::sign::IdentityKey;
    use fedlora_protocol::fixed::WeightedMean;
    use fedlora_protocol::ids::MemberIndex;
    use fedlora_protocol::plan::{Roster, RosterEntry, RunEnd, RunPlan};
    use fedlora_protocol::wire::Verified;
    use fedlora_protocol::wire::messages::RoundResult;
    use tokio::sync::mpsc;

    use super::*;
    use crate::audit::RecordFolder;
    use crate::clock::Clock;
    use crate::config::AggregatorConfig;
    use crate::directory::Directory;
    use crate::engine::EngineSetup;
    use crate::engine::chain::RunResult;
    use crate::engine::messages::ToEngine;
    use crate::publish::{Applied, GlobalState, PublishError};
    use crate::registry::Registry;
    use crate::status::{RunState, Status};

    /// A clock that jumps ahead by `step` milliseconds at each reading.
    #[derive(Debug)]
    struct JumpingClock {
        time: AtomicU64,
        step: u64,
    }

    impl Clock for JumpingClock {
        fn now(&self) -> Timestamp {
            Timestamp(self.time.fetch_add(self.step, Ordering::Relaxed))
        }
    }

    /// A run of as many rounds, which a patience may end, before its first one.
    fn running(
        root: &std::path::Path,
        step: u64,
        inbox: mpsc::Receiver<ToEngine>,
        (rounds, patience): (u32, Option<u32>),
    ) -> Running {
        let clock = Arc::new(JumpingClock {
            time: AtomicU64::new(1),
            step,
        });
        let config = AggregatorConfig::new("test", "127.0.0.1:4433".parse().unwrap()).unwrap();
        Directory::init(root, &config, clock.valid_from()).unwrap();
        let (directory, opened) = Directory::open(root).unwrap();
        let run = RunId([1; 16]);
        let mut plan = RunPlan::from_toml(
            r#"
            rounds = 1
            members = 3
            [adapter]
            lora = { rank = 2, alpha = 4.0, dropout = 0.0, targets = ["q"] }
            "#,
        )
        .unwrap();
        plan.rounds = rounds;
        plan.stopping.patience = patience;
        let tensor = |factor, shape: [usize; 2]| TensorSpec {
            name: ProjectionTensor {
                layer: 0,
                target: Target::Q,
                factor,
            }
            .name(),
            shape: shape.to_vec(),
        };
        let tensors = vec![tensor(Factor::A, [2, 4]), tensor(Factor::B, [4, 2])];
        let layout = Layout::new(tensors).unwrap();
        let adapter = Adapter::initial(plan.adapter.lora.clone(), layout, plan.seed()).unwrap();
        let entry = |number: u8| RosterEntry {
            name: format!("m{number}").parse().unwrap(),
            identity: IdentityKey::from_bytes(&[number; 32]).public(),
            certificate_key: Digest::from_bytes([number; 32]),
        };
        let roster = Roster::new((1..=3).map(entry).collect()).unwrap();
        let run_directory = directory.create_run(run).unwrap();
        let setup = EngineSetup {
            run,
            plan,
            start: None,
            federation: config.federation,
            operator: Arc::new(opened),
            registry: Registry::new(directory.clone()),
            record: RecordFolder::new(&run_directory, false),
            directory: run_directory,
            status: directory.status_path(),
            events: mpsc::unbounded_channel().0,
            clock,
        };
        let context = RunContext::new(setup, inbox).unwrap();
        let chain = AdapterChain::begin(&context, roster, adapter);
        Running::new(context, chain)
    }

    /// Publishes a round's adapter, with a result that tells this loss of the one before; gives the
    /// adapter.
    fn extend(chain: &mut AdapterChain, loss: f32) -> Adapter {
        let round = RoundNumber(chain.newest().0 + 1);
        let mut adapter = chain.adapter().clone();
        let layout = adapter.layout().clone();
        adapter.add(&layout, &vec![0.5; layout.len()]).unwrap();
        let result = RoundResult {
            run: RunId([1; 16]),
            round,
            attempt: Attempt(1),
            adapter: adapter.digest(),
            sum: Digest::from_bytes([1; 32]),
            total_weight: 5,
            transcript: Digest::from_bytes([2; 32]),
            previous: chain.head(),
            survivors: (0..5).map(MemberIndex).collect(),
            dropped: Vec::new(),
            train_loss: Some(loss),
            eval_loss: Some(loss),
            clipped: Some(0),
            votes: Some(0),
        };
        let previous = chain.head();
        let signed = Verified::sign(result, &IdentityKey::from_bytes(&[9; 32]), &previous);
        let applied = Applied {
            state: GlobalState {
                adapter: Arc::new(adapter.clone()),
                optimizer: chain.state().optimizer.clone(),
            },
            taken_back: false,
            scaled: None,
            mean: WeightedMean {
                delta: Vec::new(),
                train_loss: None,
                eval_loss: None,
                clipped: None,
                votes: None,
            },
            spoilt: Vec::new(),
        };
        chain.extend(applied, signed.unverified().clone());
        adapter
    }

    #[tokio::test]
    async fn members_can_fetch_the_newest_adapter_and_the_runs_result() {
        let folder = tempfile::tempdir().unwrap();
        let (_sender, inbox) = mpsc::channel(1);
        let mut running = running(folder.path(), 0, inbox, (9, None));
        let (context, chain) = (&running.context, &mut running.chain);
        let first = chain.adapter().clone();
        assert_eq!(chain.result().round, RoundNumber(0));
        let adapters = [3.0, 2.0, 2.5].map(|loss| extend(chain, loss));
        let best = RunResult {
            round: RoundNumber(1),
            adapter: adapters[0].digest(),
        };
        assert_eq!(chain.result(), best);
        assert!(chain.first_as_result(context).unwrap().is_none() && !chain.has_stopped());
        let fetched = |adapter: &Adapter| chain.fetch(context, &adapter.digest());
        assert_eq!(fetched(&adapters[2]).as_deref(), Some(&adapters[2]));
        // The best is read from the disk, once for all who fetch it together.
        assert_eq!(fetched(&adapters[0]), None);
        let path = context.setup.directory.adapter(1);
        peft::save(&path, &adapters[0], "base").unwrap();
        let best = fetched(&adapters[0]).unwrap();
        assert_eq!(*best, adapters[0]);
        peft::save(&path, &first, "base").unwrap();
        assert!(Arc::ptr_eq(&best, &fetched(&adapters[0]).unwrap()));
        drop(best);
        // Another's file is not given for it.
        assert_eq!(fetched(&adapters[0]), None);
        for superseded in [&first, &adapters[1]] {
            assert_eq!(fetched(superseded), None);
        }
    }

    #[tokio::test]
    async fn the_state_before_the_newest_result_is_read_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (_sender, inbox) = mpsc::channel(1);
        let mut running = running(folder.path(), 0, inbox, (9, None));
        let former = |running: &Running| running.chain.former(&running.context);
        assert_eq!(former(&running).unwrap(), None);
        let first = running.chain.adapter().clone();
        let one = extend(&mut running.chain, 3.0);
        assert_eq!(*former(&running).unwrap().unwrap().adapter, first);
        extend(&mut running.chain, 2.0);
        // It is the adapter that the result before names, or none.
        assert!(matches!(former(&running), Err(PublishError::Peft(_))));
        let path = running.context.setup.directory.adapter(1);
        peft::save(&path, &one, "base").unwrap();
        assert_eq!(*former(&running).unwrap().unwrap().adapter, one);
        peft::save(&path, &first, "base").unwrap();
        let other = former(&running);
        assert!(matches!(other, Err(PublishError::OtherAdapter { .. })));
    }

    #[tokio::test]
    async fn the_state_before_the_first_result_is_the_adapter_that_the_run_began_from() {
        let folder = tempfile::tempdir().unwrap();
        let (_sender, inbox) = mpsc::channel(1);
        let mut running = running(folder.path(), 0, inbox, (9, None));
        let mut start = running.chain.adapter().clone();
        let layout = start.layout().clone();
        start.add(&layout, &vec![0.25; layout.len()]).unwrap();
        running.context.setup.plan.start_from = Some(start.digest());
        let roster = (*running.chain.roster).clone();
        running.chain = AdapterChain::begin(&running.context, roster, start.clone());
        extend(&mut running.chain, 3.0);
        let former = running.chain.former(&running.context).unwrap();
        assert_eq!(*former.unwrap().adapter, start);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_run_that_only_harms_ends_early_with_the_first_adapter() {
        let folder = tempfile::tempdir().unwrap();
        // The endpoint is closed, so that nobody is waited for.
        let (_, inbox) = mpsc::channel(1);
        let mut running = running(folder.path(), 0, inbox, (9, Some(1)));
        let first = running.chain.adapter().clone();
        extend(&mut running.chain, 2.0);
        assert!(!running.chain.has_stopped());
        extend(&mut running.chain, 2.5);
        // No member is there: a further round would fail.
        let summary = running.run_rounds().await.see_off().await.unwrap();
        let end = RunEnd {
            planned: 9,
            rounds: 2,
            best: RoundNumber(0),
        };
        assert_eq!((summary.end, summary.adapter), (end, first.digest()));
        let stored = fedlora_adapter::peft::load(&summary.folder).unwrap();
        assert_eq!(stored.digest(), first.digest());
        let status = Status::read(&folder.path().join("status.json"));
        let status = status.unwrap().expect("the run has a status");
        assert_eq!(status.state, RunState::Finished);
        assert_eq!((status.best_round, status.stopped_early), (Some(0), true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_status_of_a_run_that_ended_early_keeps_its_phase() {
        const HOUR: u64 = 3_600_000;
        // The endpoint closes, and the run goes on another time; or no member sends its keys in time,
        // and it is over.
        for (step, closed) in [(0, true), (HOUR, false)] {
            let folder = tempfile::tempdir().unwrap();
            let (sender, inbox) = mpsc::channel(1);
            let open = (!closed).then_some(sender);
            let farewell = running(folder.path(), step, inbox, (2, None))
                .run_rounds()
                .await;
            let failure = farewell.see_off().await.expect_err("nobody took part");
            drop(open);
            let status = Status::read(&folder.path().join("status.json"));
            let status = status.unwrap().expect("the run has a status");
            let (state, told) = match closed {
                true => (RunState::Running, None),
                false => (RunState::Failed, Some(failure.to_string())),
            };
            assert_eq!((status.state, status.failure), (state, told));
            assert_eq!(status.phase.as_deref(), Some("keys"), "{failure}");
            assert_eq!(status.rounds_done, 0);
        }
    }
}
