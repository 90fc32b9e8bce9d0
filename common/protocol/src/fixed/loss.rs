//! Losses, as coarse as they may be told. A member's loss goes into the sum as a whole number of
//! steps of [`LOSS_STEP`], rounded before it is masked: whoever takes two sums apart learns a
//! member's loss to no better than half a step either way. The place of the steps is shifted by a
//! secret of the member's, which stays the same for a run, so that the mean over many members is
//! finer than a step, and repetition tells nothing more.

use std::fmt;

use rand::CryptoRng;

use super::FixedError;

/// The step that losses are rounded to, in nats a token.
pub const LOSS_STEP: f64 = 0.2;

/// The largest loss that is told apart, in nats a token; a uniform guess over 128 k tokens
/// stands at 11.8.
pub const LOSS_CAP: f64 = 32.0;

/// The largest number of steps: that of [`LOSS_CAP`], and one for the shift.
pub(super) const MAX_STEPS: u32 = 161;

/// Fewest survivors of a round whose pooled losses are published.
pub const MIN_SURVIVORS_FOR_LOSSES: usize = 5;

/// A member's secret shift of the steps, in steps, 0 to 1.
#[derive(Clone, Copy)]
pub struct LossShift(f64);

/// A loss as a number of steps, 0 to 161.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LossSteps(pub(super) u32);

impl LossShift {
    /// A fresh secret shift.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 4];
        rng.fill_bytes(&mut bytes);
        Self(f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0)
    }

    /// Rounds a loss in nats a token. Over all shifts the steps' mean is the loss.
    ///
    /// # Errors
    /// A loss that is negative or not a number.
    pub fn steps(&self, loss: f64) -> Result<LossSteps, FixedError> {
        if loss.is_nan() || loss < 0.0 {
            return Err(FixedError::Loss { got: loss });
        }
        let steps = (loss.min(LOSS_CAP) / LOSS_STEP + self.0).floor();
        Ok(LossSteps((steps as u32).min(MAX_STEPS)))
    }
}

/// The mean loss of `members`, from the sum of their steps.
pub(super) fn mean_loss(steps: i64, members: usize) -> f32 {
    (steps as f64 * LOSS_STEP / members as f64) as f32
}

impl fmt::Debug for LossShift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LossShift(..)")
    }
}

impl fmt::Debug for LossSteps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LossSteps(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::os_rng;

    #[test]
    fn what_is_secret_is_not_shown() {
        let shift = LossShift::random(&mut os_rng());
        let steps = shift.steps(1.0).unwrap();
        assert_eq!(
            format!("{shift:?} {steps:?}"),
            "LossShift(..) LossSteps(..)"
        );
    }

    #[test]
    fn losses_that_differ_by_less_than_a_step_cannot_be_told_apart() {
        let shift = LossShift(0.25);
        // All of [1.95, 2.15) are ten steps.
        for loss in [1.951, 2.0, 2.1, 2.149] {
            assert!(shift.steps(loss).unwrap() == LossSteps(10), "{loss}");
        }
        assert!(shift.steps(2.151).unwrap() == LossSteps(11));
    }

    #[test]
    fn the_mean_over_shifts_is_the_loss() {
        let members = 20_000;
        let total: i64 = (0..members)
            .map(|_| LossShift::random(&mut os_rng()).steps(2.345).unwrap())
            .map(|steps| i64::from(steps.0))
            .sum();
        // One standard deviation is at most 0.1 / sqrt(20000) = 0.0007.
        assert!((mean_loss(total, members) - 2.345).abs() < 0.005);
    }

    #[test]
    fn what_is_no_loss_is_refused_and_large_ones_are_capped() {
        let shift = LossShift(0.99);
        assert!(shift.steps(f64::NAN).is_err());
        assert!(shift.steps(-0.1).is_err());
        assert!(shift.steps(f64::INFINITY).unwrap() == LossSteps(160));
        assert!(shift.steps(0.0).unwrap() == LossSteps(0));
    }
}
