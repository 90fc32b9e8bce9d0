//! The clock that the program's shell hands in. Nothing else here reads the time.

use std::fmt;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use time::OffsetDateTime;

/// Tells the time: the system's, or a test's.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present, in milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;

    /// The present, as certificates state it.
    fn date(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::from_millis(self.now().0)
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        fedlora_shell::now()
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
    fn a_certificate_is_dated_by_the_same_clock() {
        let date = Stopped(1_700_000_000_500).date();
        assert_eq!(date.unix_timestamp(), 1_700_000_000);
        assert_eq!(date.millisecond(), 500);
    }
}
