//! M0: every value that differs from what the member holds or insists on.

use std::sync::Arc;

use super::{offered, refused_by_ledger};
use crate::crypto::agreement::Suite;
use crate::crypto::os_rng;
use crate::fixed::LaneBits;
use crate::ids::{Attempt, RoundNumber, RunId};
use crate::plan::Roster;
use crate::round::harness::Federation;
use crate::round::participant::{Expectation, LedgerError, MemoryLedger, Refusal, RoundContext};
use crate::secagg::MAX_ATTEMPTS;
use crate::wire::messages::Open;
use fedlora_adapter::Factors;
use fedlora_common::digest::Digest;

/// The refusal of an M0 with one value changed. Nothing goes into the ledger for it.
fn refused(federation: &Federation, change: impl FnOnce(&mut Open)) -> Refusal {
    let mut open = federation.open.clone();
    change(&mut open);
    let mut ledger = MemoryLedger::default();
    let refusal = offered(federation, &mut ledger, open).unwrap_err();
    offered(federation, &mut ledger, federation.open.clone()).expect("the honest M0 still opens");
    refusal
}

#[test]
fn another_suite() {
    let federation = Federation::new(4);
    assert_eq!(
        refused(&federation, |open| open.suite = 1),
        Refusal::Suite { got: 1, own: 2 }
    );
}

#[test]
fn another_run() {
    let federation = Federation::new(4);
    assert_eq!(
        refused(&federation, |open| open.run = RunId([8; 16])),
        Refusal::Run
    );
}

#[test]
fn a_roster_that_is_not_the_pinned_one() {
    let federation = Federation::new(4);
    let mut entries = federation.roster.entries().to_vec();
    entries[3].identity = federation.aggregator.public();
    let other = Roster::new(entries).unwrap().digest();
    assert_eq!(
        refused(&federation, |open| open.roster = other),
        Refusal::Roster {
            got: other,
            pinned: federation.roster.digest()
        }
    );
}

#[test]
fn another_plan() {
    let federation = Federation::new(4);
    let other = Digest::of("test plan", b"other");
    assert_eq!(
        refused(&federation, |open| open.plan = other),
        Refusal::Plan {
            got: other,
            accepted: federation.open.plan
        }
    );
}

#[test]
fn another_model_than_the_members_own() {
    let federation = Federation::new(4);
    let other = Digest::of("test adapter", b"other");
    assert_eq!(
        refused(&federation, |open| open.adapter = other),
        Refusal::Adapter {
            got: other,
            own: federation.expected.adapter
        }
    );
}

#[test]
fn parameters_that_the_plan_does_not_give() {
    let federation = Federation::new(4);
    type Change = fn(&mut Open);
    let changes: [(&str, Change); 6] = [
        ("number of neighbours", |open| open.neighbours = 2),
        ("layout", |open| {
            open.layout = Digest::of("test layout", b"other")
        }),
        ("factors", |open| open.factors = Factors::A),
        ("clip norm", |open| open.clip = 2.0),
        ("clip norm", |open| open.clip = f32::NAN),
        ("bits a lane", |open| open.bits = LaneBits::B32),
    ];
    for (named, change) in changes {
        match refused(&federation, change) {
            Refusal::Parameter { what, .. } => assert_eq!(what, named),
            other => panic!("{named}: {other}"),
        }
    }
}

#[test]
fn a_threshold_below_the_floor_or_above_the_roster() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let floor = federation.policy.threshold();
        for got in [0, 1, floor - 1, members + 1] {
            assert_eq!(
                refused(&federation, |open| open.threshold = got as u16),
                Refusal::Threshold {
                    got,
                    floor,
                    most: members
                }
            );
            assert_eq!(
                refused(&federation, |open| open.confirmations = got as u16),
                Refusal::Threshold {
                    got,
                    floor,
                    most: members
                }
            );
        }
    }
}

/// On a sparse graph shares are of a member's neighbours, signatures of all.
#[test]
fn numbers_out_of_range_on_a_sparse_graph() {
    let federation = Federation::new(70);
    let policy = federation.policy;
    let (holders, members) = (policy.neighbours() + 1, 70);
    assert!(holders < members);
    let floor = policy.threshold();
    for got in [0, 1, floor - 1, holders + 1, members] {
        let most = holders;
        assert_eq!(
            refused(&federation, |open| open.threshold = got as u16),
            Refusal::Threshold { got, floor, most }
        );
    }
    let floor = policy.confirmations();
    for got in [0, 1, floor - 1, members + 1] {
        let most = members;
        assert_eq!(
            refused(&federation, |open| open.confirmations = got as u16),
            Refusal::Threshold { got, floor, most }
        );
    }
    // Another graph: denser, sparser, none, or complete, without a beacon.
    for got in [0, 1, 2, holders - 3, holders + 1, members - 1, members] {
        assert_eq!(
            refused(&federation, |open| open.neighbours = got as u16),
            Refusal::Parameter {
                what: "number of neighbours",
                round: RoundNumber(1),
            }
        );
    }
    // The highest are taken.
    let mut highest = federation.open.clone();
    (highest.threshold, highest.confirmations) = (holders as u16, members as u16);
    offered(&federation, &mut MemoryLedger::default(), highest).unwrap();
}

/// A plan of the classical suite is not run in the hybrid one either, nor in one that does not exist.
#[test]
fn another_suite_than_the_plans() {
    let mut federation = Federation::new(4);
    let context = &federation.contexts[0];
    federation.contexts[0] = Arc::new(RoundContext {
        roster: Roster::clone(&context.roster),
        identity: Arc::clone(&context.identity),
        suite: Suite::Classical,
        ..**context
    });
    for got in [0, 2, 3] {
        let mut open = federation.open.clone();
        open.suite = got;
        let refusal = offered(&federation, &mut MemoryLedger::default(), open);
        assert_eq!(refusal, Err(Refusal::Suite { got, own: 1 }));
    }
    let mut open = federation.open.clone();
    open.suite = 1;
    offered(&federation, &mut MemoryLedger::default(), open).unwrap();
}

#[test]
fn a_single_contributor_or_a_minimum_below_the_floor() {
    for members in [3, 4, 5, 6, 10] {
        let federation = Federation::new(members);
        let floor = federation.policy.minimum();
        for got in [0, 1, floor - 1, members + 1] {
            assert_eq!(
                refused(&federation, |open| open.minimum = got as u16),
                Refusal::Minimum {
                    got,
                    floor,
                    members
                }
            );
        }
    }
}

#[test]
fn fewer_contributors_than_the_members_own_floor() {
    let mut federation = Federation::new(6);
    let context = &federation.contexts[0];
    federation.contexts[0] = Arc::new(RoundContext {
        roster: Roster::clone(&context.roster),
        identity: Arc::clone(&context.identity),
        contributors: 5,
        ..**context
    });
    let mut ledger = MemoryLedger::default();
    assert_eq!(
        offered(&federation, &mut ledger, federation.open.clone()),
        Err(Refusal::Minimum {
            got: 4,
            floor: 5,
            members: 6
        })
    );
    // Either number answers for it: no phase closes below the larger.
    let mut more = federation.open.clone();
    more.confirmations = 5;
    offered(&federation, &mut ledger, more).unwrap();
    let mut more = federation.open.clone();
    (more.minimum, more.attempt) = (5, Attempt(2));
    offered(&federation, &mut ledger, more).unwrap();
}

/// The member's chain leads to `round`.
fn offered_in(
    federation: &Federation,
    ledger: &mut MemoryLedger,
    round: u32,
    attempt: u32,
) -> Result<(), Refusal> {
    let open = Open {
        round: RoundNumber(round),
        attempt: Attempt(attempt),
        ..federation.open.clone()
    };
    let expected = Expectation {
        round: open.round,
        ..federation.expected.clone()
    };
    federation.contexts[0]
        .open(open, &expected, ledger, &mut os_rng())
        .map(|_| ())
}

#[test]
fn replayed_rounds_and_attempts() {
    let federation = Federation::new(4);
    let mut ledger = MemoryLedger::default();
    offered_in(&federation, &mut ledger, 2, 2).unwrap();
    for (round, attempt) in [(2, 2), (2, 1), (1, 3), (1, 1)] {
        let refusal = offered_in(&federation, &mut ledger, round, attempt).unwrap_err();
        assert_eq!(
            refused_by_ledger(&refusal),
            &LedgerError::Replayed {
                round: RoundNumber(round),
                attempt: Attempt(attempt),
                last_round: RoundNumber(2),
                last_attempt: Attempt(2),
            }
        );
    }
    offered_in(&federation, &mut ledger, 2, 3).unwrap();
}

/// Round 1 is expected, and the plan has two.
#[test]
fn a_round_that_does_not_follow_the_newest_result() {
    let federation = Federation::new(4);
    for round in [0, 2, 3, 4_000_000_000] {
        assert_eq!(
            refused(&federation, |open| open.round = RoundNumber(round)),
            Refusal::Round {
                got: RoundNumber(round),
                expected: RoundNumber(1),
                last: RoundNumber(2),
            }
        );
    }
    let refusal = offered_in(&federation, &mut MemoryLedger::default(), 3, 1).unwrap_err();
    assert!(matches!(refusal, Refusal::Round { .. }), "{refusal}");
}

#[test]
fn a_round_on_another_chain_of_results() {
    let federation = Federation::new(4);
    let other = Digest::of("test", b"another result");
    assert_eq!(
        refused(&federation, |open| open.previous = other),
        Refusal::Previous {
            got: other,
            own: federation.previous,
        }
    );
}

#[test]
fn every_field_of_m0_is_in_its_digest() {
    let federation = Federation::new(4);
    let other = Digest::of("test", b"other");
    let changes: [fn(&mut Open, Digest); 16] = [
        |open, _| open.suite = 1,
        |open, _| open.neighbours += 1,
        |open, _| open.confirmations += 1,
        |open, _| open.run = RunId([9; 16]),
        |open, _| open.round = RoundNumber(2),
        |open, _| open.attempt = Attempt(2),
        |open, other| open.roster = other,
        |open, other| open.adapter = other,
        |open, other| open.plan = other,
        |open, other| open.layout = other,
        |open, _| open.factors = Factors::A,
        |open, _| open.clip = 2.0,
        |open, other| open.previous = other,
        |open, _| open.bits = LaneBits::B32,
        |open, _| open.threshold += 1,
        |open, _| open.minimum -= 1,
    ];
    let mut digests = vec![federation.open.digest()];
    for change in changes {
        let mut open = federation.open.clone();
        change(&mut open, other);
        let digest = open.digest();
        assert!(!digests.contains(&digest));
        digests.push(digest);
    }
}

#[test]
fn an_attempt_that_is_none_or_one_too_many() {
    let federation = Federation::new(4);
    for got in [1, MAX_ATTEMPTS] {
        offered_in(&federation, &mut MemoryLedger::default(), 1, got).unwrap();
    }
    for got in [0, MAX_ATTEMPTS + 1, u32::MAX] {
        assert_eq!(
            refused(&federation, |open| open.attempt = Attempt(got)),
            Refusal::Attempt {
                round: RoundNumber(1),
                got: Attempt(got),
            }
        );
    }
}
