//! The factor B that a member keeps to itself, where the plan shares A alone.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use fedlora_adapter::{Adapter, AdapterError, Factors};
use fedlora_protocol::plan::RunPlan;
use zeroize::Zeroizing;

/// A member's own B, over the rounds of a run; wiped when dropped.
#[derive(Default)]
pub(super) struct OwnFactor(Mutex<Option<Zeroizing<Vec<f32>>>>);

impl OwnFactor {
    /// What this member trains on and scores in place of the global adapter: the same with its own B,
    /// where the plan shares A alone and it has one.
    ///
    /// # Errors
    /// An adapter of another shape than the one before.
    pub(super) fn in_place_of(
        &self,
        global: &Adapter,
        plan: &RunPlan,
    ) -> Result<Adapter, AdapterError> {
        let own = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = own.as_ref().filter(|_| plan.adapter.factors.shares_a()) else {
            return Ok(global.clone());
        };
        let mut values = global.values().to_vec();
        let places = global.layout().places_of(Factors::B);
        for (place, own) in places.zip(own.iter()) {
            values[place] = *own;
        }
        Adapter::new(global.config().clone(), global.layout().clone(), values)
    }

    /// Keeps the B of what this member has trained, where the plan shares A alone.
    pub(super) fn keep(&self, trained: &Adapter, plan: &RunPlan) {
        if !plan.adapter.factors.shares_a() {
            return;
        }
        let places = trained.layout().places_of(Factors::B);
        let values = places.map(|place| trained.values()[place]).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Zeroizing::new(values));
    }
}

impl fmt::Debug for OwnFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnFactor(..)")
    }
}

#[cfg(test)]
mod tests {
    use fedlora_adapter::{LoraConfig, Target};

    use super::*;

    fn plan(factors: &str) -> RunPlan {
        RunPlan::from_toml(&format!(
            "rounds = 1\nmembers = 3\n[adapter]\nfactors = \"{factors}\"\n\
             lora = {{ rank = 1, alpha = 1.0, targets = [\"q\"] }}\n"
        ))
        .unwrap()
    }

    fn adapter(values: [f32; 5]) -> Adapter {
        let config = LoraConfig::new(1, 1.0, 0.0, [Target::Q]).unwrap();
        let layout = Adapter::layout_for(&config, 1, |_, _| (3, 2)).unwrap();
        Adapter::new(config, layout, values.to_vec()).unwrap()
    }

    #[test]
    fn the_own_b_stands_beside_the_global_a() {
        let (global, trained) = (adapter([1.0, 2.0, 3.0, 0.0, 0.0]), adapter([5.0; 5]));
        let own = OwnFactor::default();
        let shared = plan("share-a");
        assert_eq!(own.in_place_of(&global, &shared).unwrap(), global);
        own.keep(&trained, &plan("both"));
        assert_eq!(own.in_place_of(&global, &shared).unwrap(), global);
        own.keep(&trained, &shared);
        let held = own.in_place_of(&global, &shared).unwrap();
        assert_eq!(held.values(), [1.0, 2.0, 3.0, 5.0, 5.0]);
        assert_eq!(own.in_place_of(&global, &plan("both")).unwrap(), global);
        assert_eq!(format!("{own:?}"), "OwnFactor(..)");
    }
}
