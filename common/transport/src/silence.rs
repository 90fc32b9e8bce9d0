//! How long a silent connection is taken for a living one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Silence after which a connection is taken for dead, in whole seconds: 3 to 30. Keep-alives go out
/// at a third of it. The shorter of both sides' holds over QUIC, a side's own over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Silence(u64);

impl Silence {
    /// The shortest, in seconds: below it lost packets alone would end connections.
    pub const MIN: u64 = 3;
    /// The longest, and the default.
    pub const MAX: u64 = 30;

    /// The time.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// Whether nothing else is asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Silence {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

impl TryFrom<u64> for Silence {
    type Error = SilenceOutOfRange;

    fn try_from(seconds: u64) -> Result<Self, SilenceOutOfRange> {
        match (Self::MIN..=Self::MAX).contains(&seconds) {
            true => Ok(Self(seconds)),
            false => Err(SilenceOutOfRange { seconds }),
        }
    }
}

impl From<Silence> for u64 {
    fn from(silence: Silence) -> Self {
        silence.0
    }
}

/// A silence that is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a silence of {seconds} s: {} to {} s are possible",
    Silence::MIN,
    Silence::MAX
)]
pub struct SilenceOutOfRange {
    /// The seconds that were asked for.
    pub seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_three_to_thirty_seconds() {
        assert_eq!(
            Silence::try_from(3_u64).map(Silence::duration),
            Ok(Duration::from_secs(3))
        );
        assert!(Silence::try_from(30_u64).is_ok_and(|silence| silence.is_default()));
        for seconds in [0, 2, 31, u64::MAX] {
            assert_eq!(
                Silence::try_from(seconds),
                Err(SilenceOutOfRange { seconds })
            );
        }
    }
}
