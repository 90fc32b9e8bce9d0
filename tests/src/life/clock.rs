//! The aggregator's clock: the runtime's own time, which the simulation winds on, and the jumps that
//! were made in it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fedlora_aggregator::Clock;
use fedlora_common::clock::Timestamp;
use tokio::time::Instant;

/// When a simulation begins, in milliseconds since the Unix epoch.
const BEGINNING: i64 = 1_800_000_000_000;

/// A clock that may jump.
#[derive(Debug)]
pub(super) struct JumpingClock {
    begun: Instant,
    ahead: AtomicI64,
}

impl JumpingClock {
    /// A clock that has not jumped yet.
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            ahead: AtomicI64::new(0),
        }
    }

    /// Sets the clock forward by so many seconds, or back where they are negative.
    pub(super) fn jump(&self, seconds: i64) {
        self.ahead.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Timestamp {
        let passed = self.begun.elapsed().as_millis() as i64;
        let now = BEGINNING + passed + self.ahead.load(Ordering::Relaxed);
        Timestamp(now.max(0) as u64)
    }

    fn steady(&self) -> Duration {
        self.begun.elapsed()
    }
}
