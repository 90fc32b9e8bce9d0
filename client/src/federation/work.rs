//! What the member's loop needs of model and data, and the training beside the protocol.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{EncodedUpdate, FixedError, RoundEncoding, WeightClass};
use fedlora_protocol::ids::{Attempt, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::{RoundTask, RunOutcome};
use fedlora_shell::SPANS;
use fedlora_train::Progress;
use rand::CryptoRng;
use tokio::sync::{Semaphore, mpsc};
use tracing::{Span, info_span};

use super::events::MemberEvent;
use crate::update::{LocalUpdate, LocalWork, UpdateError};

/// Model and private examples, as the member's loop uses them.
pub trait RoundWork: fmt::Debug + Send + Sync {
    /// The digest of the base model's configuration and weights.
    ///
    /// # Errors
    /// A checkpoint that cannot be read any more.
    fn base_digest(&self) -> Result<Digest, UpdateError>;

    /// The run's first adapter, on this member's base model.
    ///
    /// # Errors
    /// A plan that does not fit the model.
    fn first_adapter(&self, plan: &RunPlan) -> Result<Adapter, UpdateError>;

    /// Checks that a plan's training fits into the device's memory, where that is known.
    ///
    /// # Errors
    /// [`UpdateError::DoesNotFit`], with what would.
    fn fits(&self, plan: &RunPlan) -> Result<(), UpdateError>;

    /// How many of this member's examples the plan cuts.
    fn cut(&self, plan: &RunPlan) -> usize;

    /// The weight class of this member's number of training examples.
    fn weight_class(&self) -> WeightClass;

    /// Evaluates and trains.
    ///
    /// # Errors
    /// [`UpdateError::Stopped`] where `keep_going` said so; otherwise what made it impossible.
    fn update(
        &self,
        plan: &RunPlan,
        task: &RoundTask,
        keep_going: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LocalUpdate, UpdateError>;

    /// The run is over for this member.
    ///
    /// # Errors
    /// Adapters of another shape than before.
    fn ended(&self, outcome: &RunOutcome) -> Result<(), UpdateError>;

    /// Encodes an update for one attempt at a round, with fresh randomness.
    ///
    /// # Errors
    /// A delta that could overflow; clipping rules that out.
    fn encode(
        &self,
        round: RoundNumber,
        attempt: Attempt,
        update: &LocalUpdate,
        encoding: &RoundEncoding,
        rng: &mut dyn CryptoRng,
    ) -> Result<EncodedUpdate, FixedError>;
}

impl RoundWork for LocalWork {
    fn base_digest(&self) -> Result<Digest, UpdateError> {
        Self::base_digest(self)
    }

    fn first_adapter(&self, plan: &RunPlan) -> Result<Adapter, UpdateError> {
        Self::first_adapter(self, plan)
    }

    fn fits(&self, plan: &RunPlan) -> Result<(), UpdateError> {
        Self::fits(self, plan)
    }

    fn cut(&self, plan: &RunPlan) -> usize {
        Self::cut(self, plan)
    }

    fn weight_class(&self) -> WeightClass {
        Self::weight_class(self)
    }

    fn update(
        &self,
        plan: &RunPlan,
        task: &RoundTask,
        keep_going: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LocalUpdate, UpdateError> {
        Self::update(self, plan, task, keep_going)
    }

    fn ended(&self, outcome: &RunOutcome) -> Result<(), UpdateError> {
        Self::ended(self, outcome)
    }

    fn encode(
        &self,
        _: RoundNumber,
        _: Attempt,
        update: &LocalUpdate,
        encoding: &RoundEncoding,
        mut rng: &mut dyn CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        update.encode(encoding, &mut rng)
    }
}

/// A training that ended.
pub(super) struct Trained {
    pub(super) round: RoundNumber,
    /// How long it waited for the machine.
    pub(super) waited: Duration,
    /// How long evaluation and training took.
    pub(super) took: Duration,
    pub(super) update: Result<LocalUpdate, UpdateError>,
}

/// Training that runs beside the protocol, or its update. Dropping it stops the training.
pub(super) struct Training {
    pub(super) round: RoundNumber,
    pub(super) update: Option<LocalUpdate>,
    keep_going: Arc<AtomicBool>,
}

impl Training {
    /// Begins to train on a thread of its own once `gate` has a permit; `report` is called at
    /// the end.
    pub(super) fn begin(
        round_span: &Span,
        work: Arc<dyn RoundWork>,
        plan: RunPlan,
        task: RoundTask,
        gate: Arc<Semaphore>,
        events: mpsc::UnboundedSender<MemberEvent>,
        report: impl FnOnce(Trained) + Send + 'static,
    ) -> Self {
        let round = task.round;
        let keep_going = Arc::new(AtomicBool::new(true));
        let round_span = round_span.clone();
        let training = Self {
            round,
            update: None,
            keep_going: Arc::clone(&keep_going),
        };
        tokio::spawn(async move {
            let asked = Instant::now();
            let permit = gate.acquire_owned().await;
            let waited = asked.elapsed();
            let begun = Instant::now();
            let span = info_span!(target: SPANS, parent: &round_span, "train");
            drop(round_span);
            let update = tokio::task::spawn_blocking(move || {
                let _within = span.entered();
                work.update(&plan, &task, &mut |progress| {
                    let _ = events.send(MemberEvent::Training { round, progress });
                    keep_going.load(Ordering::Relaxed)
                })
            })
            .await;
            drop(permit);
            report(Trained {
                round,
                waited,
                took: begun.elapsed(),
                // A panic's own message is on standard error.
                update: update.unwrap_or(Err(UpdateError::Panicked)),
            });
        });
        training
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        self.keep_going.store(false, Ordering::Relaxed);
    }
}
