//! How fast a member's control messages are read. Each may be answered by many, which wait in memory until
//! the member takes them; one that sends faster waits, as TCP and QUIC make it.

use std::time::{Duration, Instant};

/// Messages that are read at once.
const BURST: f64 = 256.0;
/// Messages a second beyond those: some ten times what a round needs.
const RATE: f64 = 8.0;

/// The pace of one connection.
#[derive(Debug)]
pub(super) struct Pace {
    /// Messages that may be read at once; below 0 so many are owed.
    left: f64,
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// How long to wait before the next message is read.
    pub(super) fn pause(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = (self.left + passed * RATE).min(BURST) - 1.0;
        self.since = now;
        Duration::from_secs_f64((-self.left / RATE).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_at_once_and_a_flood_at_its_rate() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        for _ in 0..256 {
            assert_eq!(pace.pause(begun), Duration::ZERO);
        }
        let mut now = begun;
        for _ in 0..80 {
            now += pace.pause(now);
        }
        let seconds = (now - begun).as_secs_f64();
        assert!((9.9..10.1).contains(&seconds), "{seconds}");
        // A minute later it may send at once again.
        assert_eq!(pace.pause(now + Duration::from_secs(60)), Duration::ZERO);
    }
}
