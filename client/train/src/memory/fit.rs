//! Whether a training fits into a device's memory, and what would fit where it does not.

use std::fmt;

use crate::device::choice::Device;
use crate::memory::estimate::{Estimate, Workload};
use fedlora_model::{LlamaConfig, Memory, WeightKind};

/// A training whose need of memory can be computed with other settings.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// The model.
    pub config: &'a LlamaConfig,
    /// Where it is to run.
    pub device: Device,
    /// What is computed at a time.
    pub workload: Workload,
    /// Examples of a batch; `None` where they are not the caller's to choose.
    pub batch: Option<usize>,
    /// How the base is held.
    pub kind: WeightKind,
    /// What is kept for the backward pass.
    pub memory: Memory,
}

impl Plan<'_> {
    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        Estimate::of(self.config, &self.workload).total(self.kind, self.memory)
    }

    /// Bytes of the base's weights among them.
    pub fn weights(&self) -> u64 {
        Estimate::of(self.config, &self.workload)
            .weights
            .of(self.kind)
    }

    /// Refuses a plan that takes more than `available` bytes, with what would take less.
    ///
    /// # Errors
    /// [`DoesNotFit`].
    pub fn check(&self, available: u64) -> Result<(), DoesNotFit> {
        let needed = self.bytes();
        if needed <= available {
            return Ok(());
        }
        Err(DoesNotFit {
            device: self.device,
            needed,
            available,
            advice: self.advice(available),
            own: self.batch.is_some(),
        })
    }

    /// The least changes that make it fit: each alone, or all together where none does alone.
    fn advice(&self, available: u64) -> Vec<Advice> {
        let low = (self.memory != Memory::Low).then(|| Self {
            memory: Memory::Low,
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
            memory: Memory::Low,
            ..self.with_kind(WeightKind::Int4)
        };
        std::iter::once(least.clone())
            .chain(least.smaller())
            .find(fitting)
            .map(|plan| self.change(&plan))
            .into_iter()
            .collect()
    }

    /// What to change in the command for another plan.
    fn change(&self, plan: &Self) -> Advice {
        let mut options = Vec::new();
        if plan.memory != self.memory {
            options.push("--memory low".to_owned());
        }
        if plan.kind != self.kind {
            options.push(format!("--base-dtype {}", plan.kind));
        }
        if let Some(batch) = plan.batch.filter(|_| plan.batch != self.batch) {
            options.push(format!("--batch {batch}"));
        }
        Advice {
            options: options.join(" "),
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

/// A change of the command that makes a training fit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Advice {
    options: String,
    needed: u64,
}

/// A training that takes more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoesNotFit {
    device: Device,
    needed: u64,
    available: u64,
    advice: Vec<Advice>,
    /// Whether length and number of the examples are the caller's to choose.
    own: bool,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "this training takes about {:.1} GiB of memory, {} has {:.1} GiB free: ",
            gib(self.needed),
            self.device,
            gib(self.available)
        )?;
        for (index, advice) in self.advice.iter().enumerate() {
            let join = if index == 0 { "use " } else { ", or " };
            write!(
                f,
                "{join}{} ({:.1} GiB)",
                advice.options,
                gib(advice.needed)
            )?;
        }
        let more = match (self.own, self.advice.is_empty()) {
            (true, true) => "cut the examples at a smaller --seq",
            (true, false) => ", or cut the examples at a smaller --seq",
            (false, true) => "no option makes it fit",
            (false, false) => "",
        };
        write!(f, "{more}; --ignore-memory tries it all the same")
    }
}

impl std::error::Error for DoesNotFit {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::estimate::tests::llama_3_8b;
    use fedlora_adapter::{LoraConfig, Target};

    const GIB: u64 = 1 << 30;

    fn plan(config: &LlamaConfig) -> Plan<'_> {
        let lora = LoraConfig::new(16, 32.0, 0.0, Target::ALL).unwrap();
        let device = Device::Cuda(0);
        let kind = WeightKind::Bf16;
        Plan {
            config,
            device,
            workload: Workload {
                rows: 8 * 2048,
                context: 1024.0,
                counted: 1.0,
                ..Workload::of(&lora, device, kind)
            },
            batch: Some(8),
            kind,
            memory: Memory::Normal,
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
        for advice in &error.advice {
            assert!(advice.needed <= 24 * GIB, "{text}");
        }
        assert!(!error.advice.is_empty(), "{text}");
    }

    #[test]
    fn advice_is_what_fits() {
        let config = llama_3_8b();
        let plan = plan(&config);
        let needed = plan.bytes();
        plan.check(needed).expect("exactly enough");
        // A little too little: the mildest change does, and every kind of change is offered.
        let error = plan.check(needed - 1).unwrap_err();
        let options: Vec<_> = error.advice.iter().map(|a| a.options.as_str()).collect();
        assert_eq!(options, ["--memory low", "--batch 4", "--base-dtype q8"]);
        // Very little: only all of it together.
        let error = plan.check(12 * GIB).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.advice.len(), 1, "{text}");
        assert!(text.contains("--memory low --base-dtype q4"), "{text}");
        // Nothing helps.
        let error = plan.check(GIB).unwrap_err();
        assert!(error.advice.is_empty());
        assert!(error.to_string().contains("GiB free: cut the examples"));
    }
}
