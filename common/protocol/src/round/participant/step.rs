//! What results may have changed in the adapter: nothing in the frozen factors, and no more than
//! the plan's clip and server optimizer allow in the others. A member cannot see that a result
//! is the mean of the sum; this bounds what a made-up one can be.

use fedlora_adapter::{Adapter, AdapterError, Factors};

use super::refusal::Refusal;
use crate::fixed::can_be_mean_norm;

/// The steps of the results since the adapter that a member holds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AllowedStep {
    factors: Option<Factors>,
    /// The greatest L2 norm.
    norm: f64,
}

impl AllowedStep {
    /// Adds the step of a round that trained `factors`: an L2 norm of at most `norm`, the plan's
    /// largest step times the clip.
    pub fn add(&mut self, factors: Factors, norm: f64) {
        self.factors = match self.factors {
            Some(before) if before != factors => Some(Factors::Both),
            _ => Some(factors),
        };
        self.norm += norm;
    }

    /// Checks the adapter that the results lead to.
    ///
    /// # Errors
    /// [`Refusal::FrozenFactors`] or [`Refusal::Step`]; two adapters that do not fit each other.
    pub fn check(&self, held: &Adapter, next: &Adapter) -> Result<(), Refusal> {
        let layout = held.layout();
        let frozen = match self.factors {
            None => Some(Factors::Both),
            Some(Factors::Both) => None,
            Some(Factors::A) => Some(Factors::B),
            Some(Factors::B | Factors::Core) => Some(Factors::A),
        };
        if let Some(factors) = frozen {
            let part = layout.subset(factors).map_err(AdapterError::from)?;
            let (before, after) = (held.select(&part)?, next.select(&part)?);
            let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            if before.iter().zip(&after).any(differs) {
                return Err(Refusal::FrozenFactors);
            }
        }
        let norm = next.difference(held, layout)?.norm();
        // Each sum of two f32 is rounded to half of 2^-23 of it.
        let rounding = 2.4e-7
            * held
                .values()
                .iter()
                .map(|&x| f64::from(x).powi(2))
                .sum::<f64>()
                .sqrt();
        if self.factors == Some(Factors::Core) {
            // All of the step is one of cores: their basis keeps norms.
            let part = layout.subset(Factors::Core).map_err(AdapterError::from)?;
            let of_cores = next.difference(held, &part)?.norm();
            if of_cores + rounding + 1e-6 * norm < norm {
                return Err(Refusal::FrozenFactors);
            }
        }
        if !can_be_mean_norm(norm - rounding, self.norm) {
            return Err(Refusal::Step {
                got: norm,
                most: self.norm,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedlora_adapter::{LoraConfig, Target};

    fn adapter(change: impl FnOnce(&mut Vec<f32>)) -> Adapter {
        let config = LoraConfig::new(2, 4.0, 0.0, vec![Target::Q]).unwrap();
        let layout = Adapter::layout_for(&config, 1, |_, _| (3, 3)).unwrap();
        let mut values = vec![0.5; layout.len()];
        change(&mut values);
        Adapter::new(config, layout, values).unwrap()
    }

    /// A is 2 x 3 and comes first, B is 3 x 2.
    #[test]
    fn a_step_within_the_clip_in_trained_factors_is_taken() {
        let held = adapter(|_| ());
        let mut step = AllowedStep::default();
        step.check(&held, &held).unwrap();
        step.add(Factors::B, 0.1);
        step.check(&held, &adapter(|values| values[7] += 0.1))
            .unwrap();
        // A second round, of the other factors.
        step.add(Factors::A, 0.1);
        let both = adapter(|values| {
            values[0] += 0.1;
            values[7] += 0.1;
        });
        step.check(&held, &both).unwrap();
    }

    /// At 1e5 two f32 are 0.0078 apart: a step of 0.1 comes to 13 of that.
    #[test]
    fn a_step_between_large_values_is_as_long_as_their_rounding_makes_it() {
        let large = |step: f32| adapter(|values| values.fill(1e5 + step));
        let alone = adapter(|values| {
            values.fill(1e5);
            values[7] += 0.1;
        });
        let mut step = AllowedStep::default();
        step.add(Factors::B, 0.1);
        step.check(&large(0.0), &alone).unwrap();
        step.add(Factors::A, 0.0);
        let long = step.check(&large(0.0), &large(0.1));
        assert!(matches!(long, Err(Refusal::Step { .. })));
    }

    #[test]
    fn frozen_factors_and_long_steps_are_refused() {
        let held = adapter(|_| ());
        let mut step = AllowedStep::default();
        step.add(Factors::B, 0.1);
        let frozen = adapter(|values| values[0] = f32::from_bits(values[0].to_bits() + 1));
        assert_eq!(step.check(&held, &frozen), Err(Refusal::FrozenFactors));
        let far = adapter(|values| values[7] += 0.11);
        assert!(matches!(step.check(&held, &far), Err(Refusal::Step { .. })));
        // Without a result nothing may change.
        let other = adapter(|values| values[7] += 1e-3);
        assert!(AllowedStep::default().check(&held, &other).is_err());
        // However many rounds train the same factors, the others stay frozen.
        step.add(Factors::B, 0.1);
        assert_eq!(step.check(&held, &frozen), Err(Refusal::FrozenFactors));
        // A zero of the other sign is another value.
        let (plus, minus) = (adapter(|v| v[0] = 0.0), adapter(|v| v[0] = -0.0));
        assert_eq!(step.check(&plus, &minus), Err(Refusal::FrozenFactors));
    }
}
