//! The clock of the programs. Libraries take a [`Timestamp`] as an argument.

use std::time::SystemTime;

use fedlora_common::clock::Timestamp;

/// The system's time; the Unix epoch where the system's clock stands before it.
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}
