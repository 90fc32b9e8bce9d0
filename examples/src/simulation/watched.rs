//! Model and data whose encoded updates the simulator sees, to check each unmasked sum. Only
//! the feature `simulation` of the protocol gives the lanes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fedlora_adapter::Adapter;
use fedlora_client::federation::RoundWork;
use fedlora_client::update::{LocalUpdate, LocalWork, UpdateError};
use fedlora_common::digest::Digest;
use fedlora_protocol::fixed::{EncodedUpdate, FixedError, RoundEncoding, WeightClass};
use fedlora_protocol::ids::{Attempt, MemberIndex, RoundNumber};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::RoundTask;
use fedlora_train::Progress;
use rand::CryptoRng;

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

/// A member's work, with its encoded lanes noted.
#[derive(Debug)]
pub(super) struct WatchedWork {
    pub(super) inner: LocalWork,
    pub(super) member: MemberIndex,
    pub(super) lanes: EncodedLanes,
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
        self.inner.update(plan, task, keep_going)
    }

    fn encode(
        &self,
        round: RoundNumber,
        attempt: Attempt,
        update: &LocalUpdate,
        encoding: &RoundEncoding,
        rng: &mut dyn CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        let encoded = self.inner.encode(round, attempt, update, encoding, rng)?;
        let key = (round, attempt, self.member);
        self.lanes.put(key, encoded.lanes().to_vec());
        Ok(encoded)
    }
}
