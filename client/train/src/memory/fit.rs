//! Whether a training fits into a device's memory, and which changes make it fit.

use fedlora_model::{ActivationCheckpointing, LlamaConfig, WeightKind};

use crate::device::choice::Device;
use crate::memory::estimate::Estimate;
use crate::memory::workload::Workload;
use crate::remedy::{MemorySaving, Remedy};

/// A training whose memory can be estimated, with these settings and with others.
#[derive(Debug, Clone)]
pub struct MemoryPlan<'a> {
    /// Shape of the model.
    pub config: &'a LlamaConfig,
    /// The device that it runs on.
    pub device: Device,
    /// What a step computes.
    pub workload: Workload,
    /// Examples of a batch; `None` where the caller cannot choose their number.
    pub batch: Option<usize>,
    /// How the base's weights are held.
    pub kind: WeightKind,
    /// What the forward pass keeps for the backward pass.
    pub checkpointing: ActivationCheckpointing,
}

impl MemoryPlan<'_> {
    /// Bytes that the training takes.
    pub fn bytes(&self) -> u64 {
        Estimate::of(self.config, &self.workload).total(self.kind, self.checkpointing)
    }

    /// Bytes of the base's weights among them.
    pub fn weights(&self) -> u64 {
        Estimate::of(self.config, &self.workload)
            .weights
            .of(self.kind)
    }

    /// Refuses a plan that takes more than `available` bytes.
    ///
    /// # Errors
    /// [`DoesNotFit`], whose [`remedy`](DoesNotFit::remedy) names plans that take less.
    pub fn check(&self, available: u64) -> Result<(), DoesNotFit> {
        let needed = self.bytes();
        if needed <= available {
            return Ok(());
        }
        Err(DoesNotFit {
            device: self.device,
            needed,
            available,
            savings: self.savings(available),
            own: self.batch.is_some(),
        })
    }

    /// The mildest changes that make it fit: each alone, or all together where none does alone.
    fn savings(&self, available: u64) -> Vec<MemorySaving> {
        let low = (self.checkpointing != ActivationCheckpointing::PerBlock).then(|| Self {
            checkpointing: ActivationCheckpointing::PerBlock,
            ..self.clone()
        });
        let smaller = self.smaller();
        let kinds = [WeightKind::Bf16, WeightKind::Int8, WeightKind::Int4]
            .into_iter()
            .filter(|kind| kind.bytes(1 << 20) < self.kind.bytes(1 << 20))
            .map(|kind| self.with_kind(kind));
        let fitting = |plan: &Self| plan.bytes() <= available;
        let alone = [
            low.into_iter().find(fitting),
            smaller.into_iter().find(fitting),
            kinds.into_iter().find(fitting),
        ];
        let alone: Vec<_> = alone
            .iter()
            .flatten()
            .map(|plan| self.change(plan))
            .collect();
        if !alone.is_empty() {
            return alone;
        }
        let least = Self {
            checkpointing: ActivationCheckpointing::PerBlock,
            ..self.with_kind(WeightKind::Int4)
        };
        std::iter::once(least.clone())
            .chain(least.smaller())
            .find(fitting)
            .map(|plan| self.change(&plan))
            .into_iter()
            .collect()
    }

    /// What turns this plan into another.
    fn change(&self, plan: &Self) -> MemorySaving {
        MemorySaving {
            activation_checkpointing: plan.checkpointing != self.checkpointing,
            base_kind: (plan.kind != self.kind).then_some(plan.kind),
            batch: plan.batch.filter(|_| plan.batch != self.batch),
            needed: plan.bytes(),
        }
    }

    fn with_kind(&self, kind: WeightKind) -> Self {
        Self {
            kind,
            workload: self.workload.with_kind(self.device, kind),
            ..self.clone()
        }
    }

    /// The same with half the examples a batch, a quarter, and so on: of the longest, so many
    /// fewer tokens.
    fn smaller(&self) -> impl Iterator<Item = Self> + '_ {
        let whole = self.batch.unwrap_or(0);
        let halves = std::iter::successors(Some(whole / 2), |&half| Some(half / 2));
        halves.take_while(|&half| half > 0).map(move |batch| Self {
            batch: Some(batch),
            workload: Workload {
                rows: (self.workload.rows * batch).div_ceil(whole),
                ..self.workload.clone()
            },
            ..self.clone()
        })
    }
}

/// A run that takes more memory than the device has free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this training takes about {:.1} GiB of memory, {device} has {:.1} GiB free",
    gib(*needed), gib(*available)
)]
pub struct DoesNotFit {
    /// The device that it was to run on.
    pub device: Device,
    /// Bytes that it takes.
    pub needed: u64,
    /// Bytes that are free.
    pub available: u64,
    savings: Vec<MemorySaving>,
    /// Whether length and number of the examples are the caller's to choose.
    own: bool,
}

impl DoesNotFit {
    /// What makes it fit: the mildest change of each kind that does by itself, otherwise all of
    /// them together, otherwise nothing.
    pub fn remedy(&self) -> Option<Remedy> {
        Some(Remedy::LessMemory {
            savings: self.savings.clone(),
            shorter_examples: self.own,
        })
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::estimate::tests::llama_3_8b;
    use fedlora_adapter::{LoraConfig, Target};

    const GIB: u64 = 1 << 30;

    fn plan(config: &LlamaConfig) -> MemoryPlan<'_> {
        let lora = LoraConfig::new(16, 32.0, 0.0, Target::ALL).unwrap();
        let device = Device::Cuda(0);
        let kind = WeightKind::Bf16;
        MemoryPlan {
            config,
            device,
            workload: Workload {
                rows: 8 * 2048,
                context: 1024.0,
                target_share: 1.0,
                ..Workload::of(&lora, device, kind)
            },
            batch: Some(8),
            kind,
            checkpointing: ActivationCheckpointing::Off,
        }
    }

    #[test]
    fn an_8b_model_fits_where_it_is_known_to_and_not_elsewhere() {
        let config = llama_3_8b();
        let plan = plan(&config);
        // 16.1 GB of weights alone.
        let one = plan.smaller().last().unwrap();
        assert!(one.bytes() > 15 * GIB && one.bytes() < 40 * GIB);
        one.check(78 * GIB)
            .expect("one example of 2048 tokens fits an H100");
        let error = plan.check(24 * GIB).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cuda:0 has 24.0 GiB free"), "{text}");
        assert!(error.needed > 24 * GIB);
        for saving in &error.savings {
            assert!(saving.needed <= 24 * GIB, "{text}");
        }
        assert!(!error.savings.is_empty(), "{text}");
    }

    #[test]
    fn savings_are_what_fits() {
        let config = llama_3_8b();
        let plan = plan(&config);
        let needed = plan.bytes();
        plan.check(needed).expect("exactly enough");
        // A little too little: the mildest change does, and every kind of change is offered.
        let error = plan.check(needed - 1).unwrap_err();
        let needed: Vec<_> = error.savings.iter().map(|saving| saving.needed).collect();
        let none = MemorySaving {
            activation_checkpointing: false,
            base_kind: None,
            batch: None,
            needed: 0,
        };
        let alone = [
            MemorySaving {
                activation_checkpointing: true,
                needed: needed[0],
                ..none
            },
            MemorySaving {
                batch: Some(4),
                needed: needed[1],
                ..none
            },
            MemorySaving {
                base_kind: Some(WeightKind::Int8),
                needed: needed[2],
                ..none
            },
        ];
        let remedy = Remedy::LessMemory {
            savings: alone.to_vec(),
            shorter_examples: true,
        };
        assert_eq!(error.remedy(), Some(remedy));
        // Very little: only all of it together.
        let error = plan.check(12 * GIB).unwrap_err();
        let [saving] = error.savings.as_slice() else {
            panic!("{:?}", error.savings);
        };
        assert!(saving.activation_checkpointing, "{saving:?}");
        assert_eq!(saving.base_kind, Some(WeightKind::Int4));
        // Nothing helps.
        let error = plan.check(GIB).unwrap_err();
        let remedy = Remedy::LessMemory {
            savings: Vec::new(),
            shorter_examples: true,
        };
        assert_eq!(error.remedy(), Some(remedy));
    }
}
