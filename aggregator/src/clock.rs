//! The clock that the program's shell hands in. Nothing else here reads the time.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use fedlora_common::clock::Timestamp;
use time::OffsetDateTime;

/// How far another machine's clock may be behind.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// Tells the time: the system's, or a test's.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present, in milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;

    /// How long since some moment in the past: this only grows, as time passes, whoever sets the clock.
    /// By default the present's distance from the Unix epoch, for a clock that nobody sets.
    fn steady(&self) -> Duration {
        Duration::from_millis(self.now().0)
    }

    /// When certificates that are made now begin to be valid: an hour ago, for clocks that are behind.
    fn valid_from(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_millis(self.now().0) - CLOCKS_DIFFER
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        fedlora_shell::now()
    }

    fn steady(&self) -> Duration {
        static FIRST_READING: LazyLock<Instant> = LazyLock::new(Instant::now);
        FIRST_READING.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Stopped(u64);

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp(self.0)
        }
    }

    #[test]
    fn a_certificate_begins_an_hour_ago_by_the_same_clock() {
        let date = Stopped(1_700_000_000_500).valid_from();
        assert_eq!(date.unix_timestamp(), 1_700_000_000 - 3600);
        assert_eq!(date.millisecond(), 500);
    }
}
