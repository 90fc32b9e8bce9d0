//! What a member trains here: nothing. Its update is a few numbers that no other update is like.

use std::sync::atomic::{AtomicU64, Ordering};

use fedlora_adapter::{Adapter, AdapterError, Delta};
use fedlora_client::federation::RoundWork;
use fedlora_client::update::{LocalReport, LocalUpdate, UpdateError};
use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_protocol::fixed::{
    Contribution, EncodedUpdate, FixedError, LossShift, RoundEncoding, WeightClass,
};
use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::{RoundTask, RunOutcome};
use fedlora_train::Progress;
use rand::rngs::StdRng;
use rand::{CryptoRng, RngExt, SeedableRng};

use super::observer::Observer;

/// Features of the one projection that is adapted: with rank 1 an adapter of eight values.
const FEATURES: usize = 4;

/// The work of one member in one run.
#[derive(Debug)]
pub(super) struct TinyWork {
    run: RunId,
    member: String,
    observer: Observer,
    /// No two updates are alike.
    drawn: AtomicU64,
    seed: u64,
}

impl TinyWork {
    pub(super) fn new(run: RunId, member: &str, seed: u64, observer: Observer) -> Self {
        Self {
            run,
            member: member.to_owned(),
            observer,
            drawn: AtomicU64::new(0),
            seed,
        }
    }

    fn rng(&self, what: &'static str, number: u64) -> StdRng {
        let mut writer = DigestWriter::new(what);
        writer.number(self.seed).number(number);
        writer.raw(self.member.as_bytes());
        StdRng::from_seed(*writer.finish().as_bytes())
    }
}

impl RoundWork for TinyWork {
    fn base_digest(&self) -> Result<Digest, UpdateError> {
        Ok(Digest::of("fedlora 1 simulated base", b""))
    }

    fn first_adapter(&self, plan: &RunPlan) -> Result<Adapter, UpdateError> {
        let lora = &plan.adapter.lora;
        let layout = Adapter::layout_for(lora, 1, |_, _| (FEATURES, FEATURES));
        let layout = layout.map_err(AdapterError::Layout)?;
        Ok(Adapter::initial(lora.clone(), layout, plan.seed())?)
    }

    fn fits(&self, _: &RunPlan) -> Result<(), UpdateError> {
        Ok(())
    }

    fn cut(&self, _: &RunPlan) -> usize {
        0
    }

    fn weight_class(&self) -> WeightClass {
        WeightClass::default()
    }

    fn update(
        &self,
        _: &RunPlan,
        task: &RoundTask,
        keep_going: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LocalUpdate, UpdateError> {
        let _ = keep_going;
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut rng = self.rng("fedlora 1 simulated update", number);
        let values = (0..task.part.len()).map(|_| rng.random_range(-0.05..0.05));
        let mut delta = Delta::new(&task.part, values.collect())?;
        let clip = f64::from(task.clip);
        let delta_norm = delta.clip(clip)?;
        let shift = LossShift::random(&mut rng);
        let clipped = delta_norm > clip;
        let contribution = Contribution {
            train_loss: shift.steps(2.0)?,
            eval_loss: shift.steps(2.5)?,
            clipped,
            worse: false,
        };
        let report = LocalReport {
            train_loss: 2.0,
            validation_loss: Some(2.5),
            delta_norm,
            clipped,
            worse: false,
            tokens: 1,
        };
        Ok(LocalUpdate::new(delta, contribution, report))
    }

    fn ended(&self, _: &RunOutcome) -> Result<(), UpdateError> {
        Ok(())
    }

    fn encode(
        &self,
        round: RoundNumber,
        attempt: Attempt,
        update: &LocalUpdate,
        encoding: &RoundEncoding,
        mut rng: &mut dyn CryptoRng,
    ) -> Result<EncodedUpdate, FixedError> {
        let encoded = update.encode(encoding, &mut rng)?;
        let of = (self.run, round, attempt);
        let lanes = encoded.lanes().to_vec();
        self.observer.encoded(of, &self.member, lanes);
        Ok(encoded)
    }
}
