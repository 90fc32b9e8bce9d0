//! What the simulation knows of everything that members do, whatever they or the aggregator keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedlora_client::receipts::ReceiptsError;
use fedlora_common::digest::Digest;
use fedlora_protocol::ids::{Attempt, RoundNumber, RunId};
use fedlora_protocol::wire::messages::{Open, OpenTag, SurvivorList};

/// An attempt at a round of a run.
pub(super) type AttemptOf = (RunId, RoundNumber, Attempt);

/// Takes note of what happens, and of what must not.
#[derive(Debug, Clone, Default)]
pub(super) struct Observer(Arc<Mutex<Seen>>);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    opens: BTreeMap<(String, OpenTag), Open>,
    newest: BTreeMap<String, OpenTag>,
    /// Signed contradictions that members hold.
    pub(super) contradictions: Vec<String>,
    lists: BTreeMap<(String, OpenTag), SurvivorList>,
    /// The list for which each member revealed shares, by adapter.
    reveals: BTreeMap<(String, [u8; 32]), BTreeSet<[u8; 32]>>,
    /// The lanes that each member encoded, by member name.
    pub(super) lanes: BTreeMap<(AttemptOf, String), Vec<u32>>,
    /// Updates that the aggregator has acknowledged.
    pub(super) stored: BTreeSet<(AttemptOf, String)>,
    /// Promises that were broken.
    broken: Vec<String>,
    /// What happened, for whoever looks into a failure.
    pub(super) notes: Vec<String>,
    /// Members whose directory was set back: their log has forgotten.
    forgetful: BTreeSet<String>,
    /// Whether the lanes that are noted are other ones than those that were encoded: the check of sums
    /// must find that.
    pub(super) lies: bool,
    pub(super) figures: Figures,
}

/// What a case came to, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// How often the aggregator died.
    pub deaths: u64,
    /// Runs that were queued.
    pub runs: u64,
    /// Rounds with a result.
    pub results: u64,
    /// Those that needed another attempt.
    pub retried: u64,
    /// Those in whose sum a member is missing.
    pub partial: u64,
    /// What happened, without the time that passed.
    pub ops: u64,
    /// Of that, while a run was under way.
    pub ops_in_runs: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.deaths += other.deaths;
        self.runs += other.runs;
        self.results += other.results;
        self.retried += other.retried;
        self.partial += other.partial;
        self.ops += other.ops;
        self.ops_in_runs += other.ops_in_runs;
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            deaths,
            runs,
            results,
            retried,
            partial,
            ops,
            ops_in_runs,
        } = self;
        write!(
            f,
            "{deaths} deaths of the aggregator, {runs} runs, {results} results, {retried} of them \
             after a failed attempt, {partial} without all members; {ops} operations, \
             {ops_in_runs} of them within a run"
        )
    }
}

impl Observer {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A promise is broken.
    pub(super) fn breaks(&self, what: impl Into<String>) {
        self.seen().broken.push(what.into());
    }

    /// All broken promises.
    pub(super) fn broken(&self) -> Vec<String> {
        self.seen().broken.clone()
    }

    pub(super) fn note(&self, what: impl Into<String>) {
        self.seen().notes.push(what.into());
    }

    /// The log of a member may lack what it did.
    pub(super) fn forgets(&self, member: &str) {
        self.seen().forgetful.insert(member.to_owned());
    }

    /// A member is shown M0.
    pub(super) fn opened(&self, member: &str, open: &Open) {
        let tag = open.digest().into();
        let mut seen = self.seen();
        seen.newest.insert(member.to_owned(), tag);
        seen.opens.insert((member.to_owned(), tag), open.clone());
    }

    /// A member is shown a list of survivors, in the round of the M0 that it was shown last.
    pub(super) fn listed(&self, member: &str, list: &SurvivorList) {
        let mut seen = self.seen();
        if let Some(tag) = seen.newest.get(member).copied() {
            seen.lists.insert((member.to_owned(), tag), list.clone());
        }
    }

    /// What the aggregator shows a member contradicts what it has shown before.
    pub(super) fn contradicted(&self, member: &str, error: &ReceiptsError) {
        let mut seen = self.seen();
        seen.contradictions.push(format!("{member}: {error}"));
    }

    /// A member has sent shares: it helps to reveal one sum on an adapter, and none of too few.
    pub(super) fn revealed(&self, member: &str, tag: OpenTag) {
        let mut seen = self.seen();
        let key = (member.to_owned(), tag);
        let (Some(open), Some(list)) = (seen.opens.get(&key), seen.lists.get(&key)) else {
            let what = format!("{member} revealed shares in a round that it was not shown");
            seen.broken.push(what);
            return;
        };
        let (adapter, fewest) = (*open.adapter.as_bytes(), usize::from(open.minimum));
        let (count, round) = (list.members.len(), open.round);
        // The sum is the same where all vectors are.
        let sum = *list.vectors.as_bytes();
        if count < fewest {
            seen.broken.push(format!(
                "{member} revealed a sum of {count} in round {round}, below {fewest}"
            ));
        }
        let sums = seen
            .reveals
            .entry((member.to_owned(), adapter))
            .or_default();
        sums.insert(sum);
        let sums = sums.len();
        if sums > 1 && !seen.forgetful.contains(member) {
            seen.broken.push(format!(
                "{member} helped to reveal {sums} sums on one adapter, in round {round} at last"
            ));
        }
    }

    /// A member has encoded its update for an attempt.
    pub(super) fn encoded(&self, attempt: AttemptOf, member: &str, mut lanes: Vec<u32>) {
        let mut seen = self.seen();
        if seen.lies {
            lanes[0] ^= 1;
        }
        seen.lanes.insert((attempt, member.to_owned()), lanes);
    }

    /// The aggregator has acknowledged the update of a member for M0 with this digest.
    pub(super) fn stored(&self, member: &str, open: &Digest) {
        let mut seen = self.seen();
        let key = (member.to_owned(), OpenTag::from(*open));
        if let Some(open) = seen.opens.get(&key) {
            let attempt = (open.run, open.round, open.attempt);
            seen.stored.insert((attempt, member.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use fedlora_adapter::Factors;
    use fedlora_protocol::fixed::LaneBits;
    use fedlora_protocol::ids::MemberIndex;

    use super::*;

    fn open(attempt: u32) -> Open {
        let digest = Digest::from_bytes([1; 32]);
        Open {
            suite: 1,
            run: RunId([1; 16]),
            round: RoundNumber(1),
            attempt: Attempt(attempt),
            previous: digest,
            roster: digest,
            adapter: digest,
            plan: digest,
            layout: digest,
            factors: Factors::Both,
            clip: 0.1,
            bits: LaneBits::B24,
            neighbours: 3,
            threshold: 3,
            confirmations: 3,
            minimum: 3,
        }
    }

    fn list(members: u16, vectors: u8) -> SurvivorList {
        SurvivorList {
            members: (0..members).map(MemberIndex).collect(),
            vectors: Digest::from_bytes([vectors; 32]),
        }
    }

    fn reveals(observer: &Observer, open: &Open, list: &SurvivorList) -> usize {
        observer.opened("a", open);
        observer.listed("a", list);
        observer.revealed("a", open.digest().into());
        observer.broken().len()
    }

    #[test]
    fn a_second_sum_on_an_adapter_and_one_of_too_few_are_found() {
        let observer = Observer::default();
        assert_eq!(reveals(&observer, &open(1), &list(3, 1)), 0);
        // The same once more, after a connection broke.
        assert_eq!(reveals(&observer, &open(1), &list(3, 1)), 0);
        assert_eq!(reveals(&observer, &open(2), &list(4, 2)), 1);
        let observer = Observer::default();
        assert_eq!(reveals(&observer, &open(1), &list(2, 1)), 1);
        let observer = Observer::default();
        observer.revealed("a", open(1).digest().into());
        assert_eq!(observer.broken().len(), 1, "in a round that nobody opened");
    }
}
