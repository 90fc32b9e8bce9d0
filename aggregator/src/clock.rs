//! The clock that the program's shell hands in. Nothing else here reads the time.

use std::fmt;
use std::time::{Duration, SystemTime};

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
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(since.as_millis() as u64)
    }
}
