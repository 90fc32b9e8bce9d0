//! When this member's certificate ends, and what its user should know of that.

use std::fmt;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use time::{Date, OffsetDateTime};

/// How long before its end a certificate is warned of. The aggregator gives another one on a connection
/// in the second half of its year: one that is so near its end was not renewed for months.
const NOTICE: Duration = Duration::from_secs(60 * 86_400);

/// The end of a certificate that is near, or past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateNotice {
    /// It ends on this day, within 60 days.
    EndsSoon(Date),
    /// It ended on this day: no connection is possible.
    Ended(Date),
}

impl CertificateNotice {
    /// What is to be known of a certificate with this end.
    pub fn of(end: Timestamp, now: Timestamp) -> Option<Self> {
        if end <= now {
            return Some(Self::Ended(day(end)));
        }
        (now.until(end) < NOTICE).then(|| Self::EndsSoon(day(end)))
    }
}

impl fmt::Display for CertificateNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndsSoon(day) => write!(
                f,
                "this member's certificate ends on {day}: it is renewed as the member connects"
            ),
            Self::Ended(day) => write!(
                f,
                "this member's certificate ended on {day}: its operator has to invite it again, \
                 with other keys"
            ),
        }
    }
}

/// A day in UTC.
pub fn day(time: Timestamp) -> Date {
    let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds);
    time.unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_of_sixty_days_before_it() {
        let now = Timestamp(1_800_000_000_000);
        let after = |days: u64| now.after(Duration::from_secs(days * 86_400));
        assert_eq!(CertificateNotice::of(after(61), now), None);
        let soon = CertificateNotice::of(after(59), now);
        assert_eq!(soon, Some(CertificateNotice::EndsSoon(day(after(59)))));
        let ended = CertificateNotice::of(now, now);
        assert_eq!(ended, Some(CertificateNotice::Ended(day(now))));
        assert!(ended.unwrap().to_string().contains("2027-01-15"));
    }
}
