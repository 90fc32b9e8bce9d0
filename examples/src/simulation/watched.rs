//! A member's work as the simulator runs it: it repeats with its seed, may be poisoned, and shows
//! the encoded updates, to check each unmasked sum. Only the feature `simulation` of the protocol
//! gives the lanes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fedlora_adapter::{Adapter, Factors};
use fedlora_client::federation::RoundWork;
use fedlora_client::update::{LocalUpdate, LocalWork, UpdateError};
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::fixed::{EncodedUpdate, FixedError, LossShift, RoundEncoding, WeightClass};
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::{RoundTask, RunOutcome};
use fedlora_train::{Engine, Progress};
use rand::rngs::StdRng;
use rand::{CryptoRng, SeedableRng};

use super::data::{Institution, member_work};
use super::drift::Drift;
use super::poison::Poison;

/// The lanes that each member encoded, by round, attempt and member.
#[derive(Debug, Clone, Default)]
pub(super) struct EncodedLanes(Arc<Mutex<LanesByAttempt>>);

type LanesByAttempt = HashMap<(RoundNumber, Attempt, MemberIndex), Vec<u32>>;

impl EncodedLanes {
    /// Gives all lanes to `look`.
    pub(super) fn with<T>(&self, look: impl FnOnce(&LanesByAttempt) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, key: (RoundNumber, Attempt, MemberIndex), lanes: Vec<u32>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key, lanes);
    }
}

/// A member's work: rounded with randomness that follows from the seed, poisoned where the user
/// says so, with its encoded lanes noted where sums are checked, and its change of both factors.
#[derive(Debug)]
pub(super) struct WatchedWork {
    inner: LocalWork,
    member: MemberIndex,
    seed: u64,
    poison: Option<Poison>,
    lanes: Option<EncodedLanes>,
    drift: Drift,
    /// The clip of the round that was trained last.
    clip: Mutex<f64>,
}

impl WatchedWork {
    /// Work on these examples, with the seed of the run.
    pub(super) fn new(
        engine: &Engine,
        one: &Institution,
        member: MemberIndex,
        seed: u64,
        poison: Option<Poison>,
        lanes: Option<EncodedLanes>,
        drift: Drift,
    ) -> Self {
        let mut rng = rng(seed, member, RoundNumber(0), Attempt(0));
        let mut examples = one.examples.clone();
        if let Some(poison) = poison {
            examples.training = poison.examples(&examples.training, &mut rng);
        }
        let inner = member_work(engine, examples, member, seed)
            .with_loss_shift(LossShift::random(&mut rng))
            .with_own(Arc::clone(&one.own));
        Self {
            inner,
            member,
            seed,
            poison,
            lanes,
            drift,
            clip: Mutex::new(0.0),
        }
    }
}

/// The randomness of one attempt at a round, for one member.
fn rng(seed: u64, member: MemberIndex, round: RoundNumber, attempt: Attempt) -> StdRng {
    let mut writer = DigestWriter::new("fedlora 1 simulated member");
    writer.number(seed).number(member.0.into());
    writer.number(round.0.into()).number(attempt.0.into());
    StdRng::from_seed(*writer.finish().as_bytes())
}

impl RoundWork for WatchedWork {
    fn base_digest(&self) -> Result<Digest, UpdateError> {
        self.inner.base_digest()
    }

    fn first_adapter(&self, plan: &RunPlan) -> Result<Adapter, UpdateError> {
        self.inner.first_adapter(plan)
    }

    fn fits(&self, plan: &RunPlan) -> Result<(), UpdateError> {
        self.inner.fits(plan)
    }

    fn cut(&self, plan: &RunPlan) -> usize {
        self.inner.cut(plan)
    }

    fn weight_class(&self) -> WeightClass {
        self.inner.weight_class()
    }

    fn update(
        &self,
        plan: &RunPlan,
        task: &RoundTask,
        keep_going: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LocalUpdate, UpdateError> {
        *self.clip.lock().unwrap_or_else(PoisonError::into_inner) = f64::from(task.clip);
        let update = self.inner.update(plan, task, keep_going)?;
        if task.factors == Factors::Both {
            let weight = self.inner.weight_class().weight() as f64;
            let delta = update.delta().values();
            self.drift.add(task.round, weight, &task.adapter, delta);
        }
        Ok(update)
    }

    fn ended(&self, outcome: &RunOutcome) -> Result<(), UpdateError> {
        self.inner.ended(outcome)
    }

    fn encode(
        &self,
        round: RoundNumber,
        attempt: Attempt,
        update: &LocalUpdate,
        encoding: &RoundEncoding,
        _: &mut dyn CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        let mut rng = rng(self.seed, self.member, round, attempt);
        let mut encoded = self
            .inner
            .encode(round, attempt, update, encoding, &mut rng)?;
        if let Some(poison) = self.poison {
            let clip = *self.clip.lock().unwrap_or_else(PoisonError::into_inner);
            encoded = poison.update(encoded, update.report(), clip, &mut rng);
        }
        if let Some(lanes) = &self.lanes {
            let key = (round, attempt, self.member);
            lanes.put(key, encoded.lanes().to_vec());
        }
        Ok(encoded)
    }
}
