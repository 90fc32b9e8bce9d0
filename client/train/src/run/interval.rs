//! When checkpoints and held-out scores are due.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

/// The longest stretch between two checkpoints: what an interruption without notice can cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// A number of optimizer steps.
    Steps(NonZeroUsize),
    /// A time; zero writes a checkpoint before every step.
    Time(Duration),
}

impl Interval {
    /// Whether a checkpoint is due `steps` steps and `elapsed` after the last one.
    pub(crate) fn due(self, steps: usize, elapsed: Duration) -> bool {
        match self {
            Self::Steps(every) => steps >= every.get(),
            Self::Time(time) => elapsed >= time,
        }
    }
}

impl Default for Interval {
    /// Five minutes.
    fn default() -> Self {
        Self::Time(Duration::from_secs(300))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Time(time) => write!(f, "{}s", time.as_secs()),
        }
    }
}

impl FromStr for Interval {
    type Err = IntervalError;

    /// `50` is a number of steps; `30s`, `5m` and `2h` are times.
    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let refuse = || IntervalError {
            got: text.chars().take(40).collect(),
        };
        let digits = text.trim_end_matches(['s', 'm', 'h']);
        let count: u32 = digits
            .parse()
            .ok()
            .filter(|_| !digits.starts_with('+'))
            .ok_or_else(refuse)?;
        let count = NonZeroUsize::new(count as usize).ok_or_else(refuse)?;
        let seconds = match &text[digits.len()..] {
            "" => return Ok(Self::Steps(count)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(refuse()),
        };
        Ok(Self::Time(Duration::from_secs(
            count.get() as u64 * seconds,
        )))
    }
}

/// Text that is not an [`Interval`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{got}' is not an interval: give a number of steps (50), or a time (30s, 5m, 2h)")]
pub struct IntervalError {
    /// The text, cut at 40 characters.
    got: String,
}

/// When held-out examples are scored. The last step is always scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvaluationInterval {
    /// After each epoch.
    #[default]
    Epoch,
    /// After each multiple of a number of optimizer steps.
    Steps(NonZeroUsize),
}

impl EvaluationInterval {
    /// Whether a score is due after `step` steps.
    pub(crate) fn due(self, step: usize, epoch_ended: bool) -> bool {
        match self {
            Self::Epoch => epoch_ended,
            Self::Steps(every) => step.is_multiple_of(every.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    #[test]
    fn intervals_are_steps_or_times() {
        for (text, interval) in [
            ("50", Interval::Steps(steps(50))),
            ("30s", Interval::Time(Duration::from_secs(30))),
            ("5m", Interval::Time(Duration::from_secs(300))),
            ("2h", Interval::Time(Duration::from_secs(7200))),
        ] {
            assert_eq!(text.parse::<Interval>().unwrap(), interval);
        }
        for bad in ["", "0", "-1", "+5", "5x", "5mm", "m", "0s", "1.5"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_checkpoint_is_due_after_the_interval_and_not_before() {
        let second = Duration::from_secs(1);
        let interval = Interval::Steps(steps(3));
        assert!(!interval.due(2, 100 * second));
        assert!(interval.due(3, Duration::ZERO));
        let interval = Interval::Time(5 * second);
        assert!(!interval.due(100, 4 * second));
        assert!(interval.due(0, 5 * second));
    }

    #[test]
    fn a_score_is_due_after_an_epoch_or_a_number_of_steps() {
        assert!(EvaluationInterval::Epoch.due(7, true));
        assert!(!EvaluationInterval::Epoch.due(7, false));
        let every = EvaluationInterval::Steps(steps(3));
        let due: Vec<_> = (1..8).filter(|&step| every.due(step, true)).collect();
        assert_eq!(due, [3, 6]);
    }
}
