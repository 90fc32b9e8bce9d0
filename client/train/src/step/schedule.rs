//! The learning rate of each step: a linear warm-up, then a decay.

use crate::step::decay::Decay;

/// A schedule over a number of optimizer steps, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The rate at the end of the warm-up.
    pub peak: f64,
    /// Steps over which the rate rises linearly; step 0 already has `peak / (warmup + 1)`.
    pub warmup: usize,
    /// Steps of the whole schedule, warm-up included; a decaying rate is zero from there on.
    pub total: usize,
    /// How the rate falls after the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of `step`, numbered from 0.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1);
        // Clamped: past the end a cosine would rise again.
        let done = ((step - self.warmup) as f64 / span as f64).min(1.0);
        self.peak * self.decay.factor(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_falls_and_stays_at_zero() {
        for decay in [Decay::Cosine, Decay::Linear] {
            let schedule = Schedule {
                peak: 1e-4,
                warmup: 4,
                total: 20,
                decay,
            };
            let rates: Vec<_> = (0..40).map(|step| schedule.rate(step)).collect();
            assert!(rates[0] > 0.0);
            assert!(rates[..5].is_sorted());
            assert_eq!(rates[4], 1e-4);
            assert!(rates[4..].is_sorted_by(|a, b| a >= b));
            assert!(
                rates[20..].iter().all(|&rate| rate.abs() < 1e-18),
                "{decay:?}"
            );
        }
    }

    #[test]
    fn constant_stays() {
        let schedule = Schedule {
            peak: 0.5,
            warmup: 0,
            total: 3,
            decay: Decay::Constant,
        };
        assert!((0..9).all(|step| schedule.rate(step) == 0.5));
    }
}
