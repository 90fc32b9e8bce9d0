//! What a stranger can make the aggregator write into its log: so many lines a minute, and then a count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines a minute.
const LINES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// How often something was said in the present minute.
#[derive(Debug, Default)]
pub(crate) struct Reticence(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// When the minute began; nothing before the first line.
    since: Option<Instant>,
    lines: u32,
    kept_back: u64,
}

impl Reticence {
    /// Whether to say something that was said before, and how many times it was kept back since the
    /// last time.
    pub(crate) fn may_say(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *said.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= MINUTE {
            (said.since, said.lines) = (Some(now), 0);
        }
        if said.lines >= LINES {
            said.kept_back += 1;
            return None;
        }
        said.lines += 1;
        Some(std::mem::take(&mut said.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_of_in_the_next_minute() {
        let begun = Instant::now();
        let reticence = Reticence::default();
        let said = (0..1000).filter(|_| reticence.may_say(begun).is_some());
        assert_eq!(said.count(), 20);
        assert_eq!(reticence.may_say(begun + MINUTE), Some(980));
        assert_eq!(reticence.may_say(begun + MINUTE), Some(0));
    }
}
