//! Which members a round waits for: not for one that makes no progress, nor again for one that
//! held up a round of this run before.

use std::collections::BTreeMap;
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_protocol::ids::{MemberIndex, MemberSet};

/// The members that held up a round of this run, and have not been in a sum since.
#[derive(Debug, Clone, Default)]
pub(super) struct Offenders(MemberSet);

impl Offenders {
    /// Remembers a member. Whether it is new.
    pub(super) fn add(&mut self, member: MemberIndex) -> bool {
        self.0.insert(member)
    }

    /// Forgets those that are in a sum again.
    pub(super) fn forgive(&mut self, survivors: &[MemberIndex]) {
        let kept = self.0.iter().filter(|member| !survivors.contains(member));
        self.0 = kept.collect();
    }

    /// Those that a round of `members` members does not wait for: none, where too few others are left
    /// for a `quorum`.
    pub(super) fn of_round(&self, members: usize, quorum: usize) -> MemberSet {
        match members.saturating_sub(self.0.len()) < quorum {
            true => MemberSet::default(),
            false => self.0.clone(),
        }
    }
}

/// How long the time for keys is held open for members that still fetch the adapter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Downloads {
    /// When the round was opened.
    pub(super) opened: Timestamp,
    /// How long a member has for its keys once it holds the adapter.
    pub(super) keys: Duration,
    /// How much longer that may make the time for keys.
    pub(super) longest: Duration,
}

impl Downloads {
    /// Whether a member whose download last moved at one of `fetched` may still send its keys.
    pub(super) fn hold_open(
        &self,
        fetched: impl IntoIterator<Item = Timestamp>,
        now: Timestamp,
    ) -> bool {
        let last = self.opened.after(self.keys + self.longest);
        let recent = |at: Timestamp| at >= self.opened && now < at.after(self.keys);
        now < last && fetched.into_iter().any(recent)
    }
}

/// When each member last showed that it is at work.
#[derive(Debug)]
pub(super) struct Progress {
    patience: Duration,
    begun: Timestamp,
    heard: BTreeMap<MemberIndex, Timestamp>,
}

impl Progress {
    /// Starts at `now`; a member may be silent for `patience`.
    pub(super) fn begin(now: Timestamp, patience: Duration) -> Self {
        Self {
            patience,
            begun: now,
            heard: BTreeMap::new(),
        }
    }

    /// A member has shown that it is at work.
    pub(super) fn hear(&mut self, member: MemberIndex, now: Timestamp) {
        self.heard.insert(member, now);
    }

    /// Those of `awaited` that have been silent for too long.
    pub(super) fn silent(&self, awaited: &[MemberIndex], now: Timestamp) -> Vec<MemberIndex> {
        let last = |member| self.heard.get(member).copied().unwrap_or(self.begun);
        awaited
            .iter()
            .filter(|member| last(member).after(self.patience) <= now)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: MemberIndex = MemberIndex(1);
    const TWO: MemberIndex = MemberIndex(2);

    #[test]
    fn who_is_heard_from_is_waited_for() {
        let patience = Duration::from_millis(100);
        let mut progress = Progress::begin(Timestamp(1000), patience);
        assert!(progress.silent(&[ONE, TWO], Timestamp(1099)).is_empty());
        progress.hear(ONE, Timestamp(1050));
        assert_eq!(progress.silent(&[ONE, TWO], Timestamp(1100)), [TWO]);
        assert_eq!(progress.silent(&[ONE], Timestamp(1150)), [ONE]);
        assert!(progress.silent(&[], Timestamp(9999)).is_empty());
    }

    #[test]
    fn a_download_that_makes_progress_holds_the_time_for_keys_open_up_to_an_end() {
        let second = Duration::from_secs(1);
        let downloads = Downloads {
            opened: Timestamp(10_000),
            keys: 2 * second,
            longest: 5 * second,
        };
        let at = |seconds: f64| Timestamp(10_000 + (seconds * 1000.0) as u64);
        // One that was done before the round opened has had its time.
        assert!(!downloads.hold_open([Timestamp(9_000)], at(2.0)));
        assert!(!downloads.hold_open([], at(2.0)));
        assert!(downloads.hold_open([Timestamp(9_000), at(1.5)], at(2.0)));
        assert!(downloads.hold_open([at(1.5)], at(3.4)));
        assert!(
            !downloads.hold_open([at(1.5)], at(3.5)),
            "it makes no progress"
        );
        assert!(downloads.hold_open([at(6.5)], at(6.9)));
        assert!(!downloads.hold_open([at(6.9)], at(7.0)), "not for ever");
    }

    #[test]
    fn an_offender_is_forgiven_once_it_is_in_a_sum() {
        let mut offenders = Offenders::default();
        assert!(offenders.add(ONE));
        assert!(!offenders.add(ONE));
        assert!(offenders.add(TWO));
        offenders.forgive(&[MemberIndex(0), ONE]);
        assert_eq!(offenders.of_round(5, 4).iter().collect::<Vec<_>>(), [TWO]);
        assert_eq!(offenders.of_round(5, 5).len(), 0, "all are needed");
    }
}
