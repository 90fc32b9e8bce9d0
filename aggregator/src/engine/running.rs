//! The phase of the rounds: opens one after another until the plan is carried out.

use fedlora_protocol::ids::{Attempt, RoundNumber};
use fedlora_protocol::wire::messages::{PhaseName, RoundFailure};
use tokio::task::block_in_place;

use super::chain::AdapterChain;
use super::closed_round::{AttemptFailure, RoundOutcome, end_run};
use super::context::RunContext;
use super::current_round::run_round;
use super::failure::RunFailure;
use super::farewell::{Farewell, Reached};
use crate::publish;

/// Attempts at one round before the run is given up.
const MAX_ATTEMPTS: u32 = 3;

/// A run whose cohort is complete, between two rounds.
#[derive(Debug)]
pub(super) struct Running {
    context: RunContext,
    chain: AdapterChain,
}

impl Running {
    /// The run before its first round.
    pub(super) fn new(context: RunContext, chain: AdapterChain) -> Self {
        Self { context, chain }
    }

    /// Runs all rounds of the plan, or as many as its patience allows.
    pub(super) async fn run_rounds(self) -> Farewell {
        let Self {
            mut context,
            mut chain,
        } = self;
        let last = RoundNumber(context.setup.plan.rounds);
        let mut round = RoundNumber(1);
        let mut attempt = Attempt(1);
        while round <= last && !chain.has_stopped() {
            let closed = match run_round(context, chain, round, attempt).await {
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
                    let failure = RunFailure::Round { round, reason };
                    let reached = Reached::Rounds {
                        chain: Box::new(chain),
                        phase,
                    };
                    return Farewell::failed(context, reached, failure);
                }
            }
        }
        // Rounds' adapters are on the disk; the first one only where it is the result.
        if let Some(first) = chain.first_as_result() {
            let (directory, base) = (&context.setup.directory, &context.setup.plan.base);
            let stored = block_in_place(|| publish::store_first(directory, first, &base.name));
            if let Err(error) = stored {
                return *end_run(context, chain, None, error.into());
            }
        }
        Farewell::finished(context, chain)
    }
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

    use fedlora_adapter::{Adapter, Factor, Layout, ProjectionTensor, Target, TensorSpec};
    use fedlora_common::clock::Timestamp;
    use fedlora_common::digest::Digest;
    use fedlora_protocol::crypto::sign::IdentityKey;
    use fedlora_protocol::ids::RunId;
    use fedlora_protocol::plan::{Roster, RosterEntry, RunPlan};
    use tokio::sync::mpsc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::AggregatorConfig;
    use crate::directory::Directory;
    use crate::engine::EngineSetup;
    use crate::engine::messages::ToEngine;
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

    fn running(root: &std::path::Path, step: u64, inbox: mpsc::Receiver<ToEngine>) -> Running {
        let clock = Arc::new(JumpingClock {
            time: AtomicU64::new(1),
            step,
        });
        let config = AggregatorConfig::new("test", "127.0.0.1:4433".parse().unwrap()).unwrap();
        Directory::init(root, &config, clock.date()).unwrap();
        let (directory, opened) = Directory::open(root).unwrap();
        let run = RunId([1; 16]);
        let plan = RunPlan::from_toml(
            r#"
            rounds = 2
            members = 3
            [adapter]
            lora = { rank = 2, alpha = 4.0, dropout = 0.0, targets = ["q"] }
            "#,
        )
        .unwrap();
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
        let setup = EngineSetup {
            run,
            plan,
            federation: config.federation,
            operator: Arc::new(opened),
            registry: Registry::new(directory.clone()),
            directory: directory.create_run(run).unwrap(),
            keep_for_audit: false,
            status: directory.status_path(),
            events: mpsc::unbounded_channel().0,
            clock,
        };
        let context = RunContext::new(setup, inbox).unwrap();
        let chain = AdapterChain::begin(&context, roster, adapter);
        Running::new(context, chain)
    }

    #[tokio::test]
    async fn the_status_of_a_failed_run_keeps_the_phase_in_which_it_failed() {
        const HOUR: u64 = 3_600_000;
        // The endpoint closes; then no member sends its keys in time.
        for (step, closed) in [(0, true), (HOUR, false)] {
            let folder = tempfile::tempdir().unwrap();
            let (sender, inbox) = mpsc::channel(1);
            let open = (!closed).then_some(sender);
            let farewell = running(folder.path(), step, inbox).run_rounds().await;
            let failure = farewell.see_off().await.expect_err("nobody took part");
            drop(open);
            let status = Status::read(&folder.path().join("status.json"));
            let status = status.unwrap().expect("the run has a status");
            assert_eq!(status.state, RunState::Failed, "{failure}");
            assert_eq!(status.failure, Some(failure.to_string()));
            assert_eq!(status.phase.as_deref(), Some("keys"), "{failure}");
            assert_eq!(status.rounds_done, 0);
        }
    }
}
