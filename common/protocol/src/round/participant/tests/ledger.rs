//! Both shares of one member, asked for one by one: in another attempt, in another life of
//! the process, and in an earlier run.

use super::{offered, refused_by_ledger};
use crate::ids::{Attempt, MemberIndex, RoundNumber, RunId};
use crate::round::harness::Federation;
use crate::round::participant::{LedgerError, LedgerRound, MemoryLedger, RoundLedger};
use crate::wire::messages::Open;
use fedlora_common::digest::Digest;

const ONE: RoundNumber = RoundNumber(1);
const LIST: Digest = Digest::from_bytes([5; 32]);

#[test]
fn after_a_reveal_no_other_attempt_of_the_round_opens() {
    let federation = Federation::new(5);
    let mut signed = federation.opened().shared().uploaded(&federation).signed();
    let first = signed.members.remove(0);
    let ledger = &mut signed.ledgers[0];
    first.confirmations(&signed.confirmations, ledger).unwrap();

    let retry = Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    };
    let refusal = offered(&federation, ledger, retry).unwrap_err();
    assert_eq!(
        refused_by_ledger(&refusal),
        &LedgerError::Revealed { round: ONE }
    );
}

/// The attack that one adapter, one list is for: all members are in the first sum, nothing is
/// published, and in the second sum one is left out.
#[test]
fn a_second_sum_on_one_adapter_is_refused_in_any_round_and_run() {
    let federation = Federation::new(5);
    let mut signed = federation.opened().shared().uploaded(&federation).signed();
    let ledger = &mut signed.ledgers[0];
    let first = signed.members.remove(0);
    first.confirmations(&signed.confirmations, ledger).unwrap();
    let second_sum = LedgerError::SecondSum {
        adapter: federation.open.adapter,
        run: federation.run,
        round: ONE,
    };
    for (run, round) in [(federation.run, 2), (RunId([9; 16]), 1)] {
        let again = LedgerRound {
            run,
            round: RoundNumber(round),
            ..LedgerRound::from(&federation.open)
        };
        assert_eq!(ledger.open(&again), Err(second_sum.clone()));
    }
    // A run that was open before the reveal must not reveal either.
    let mut ledger = MemoryLedger::default();
    let (one, two) = (logged(1, ONE), logged(2, ONE));
    ledger.open(&one).unwrap();
    ledger.open(&two).unwrap();
    ledger.reveal(&two, LIST).unwrap();
    assert!(matches!(
        ledger.reveal(&one, LIST),
        Err(LedgerError::SecondSum { .. })
    ));
    let next = LedgerRound {
        round: RoundNumber(2),
        adapter: Digest::of("test adapter", b"next"),
        ..two
    };
    assert_eq!(ledger.open(&next), Ok(Some(ONE)));
}

/// The first attempt of a round on an adapter that all runs here have in common.
fn logged(run: u8, round: RoundNumber) -> LedgerRound {
    LedgerRound {
        run: RunId([run; 16]),
        round,
        attempt: Attempt(1),
        adapter: Digest::of("test adapter", b"common"),
    }
}

/// The member's state machine is copied by restoring a snapshot of its machine, the ledger is
/// not: the second reveal is refused.
#[test]
fn a_second_reveal_is_refused_whatever_the_list() {
    let federation = Federation::new(5);
    let twice = || federation.opened().shared().uploaded(&federation).signed();
    let (mut one, mut two) = (twice(), twice());
    let ledger = &mut one.ledgers[0];
    let first = one.members.remove(0);
    first.confirmations(&one.confirmations, ledger).unwrap();
    let again = two.members.remove(0);
    let refusal = again.confirmations(&two.confirmations, ledger).unwrap_err();
    assert_eq!(
        refused_by_ledger(&refusal),
        &LedgerError::Revealed { round: ONE }
    );
}

#[test]
fn an_attempt_that_was_left_for_a_newer_one_reveals_nothing() {
    let federation = Federation::new(5);
    let mut signed = federation.opened().shared().uploaded(&federation).signed();
    let ledger = &mut signed.ledgers[0];
    let retry = Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    };
    offered(&federation, ledger, retry).unwrap();
    let first = signed.members.remove(0);
    let refusal = first
        .confirmations(&signed.confirmations, ledger)
        .unwrap_err();
    assert_eq!(
        refused_by_ledger(&refusal),
        &LedgerError::NotOpen {
            round: ONE,
            attempt: Attempt(1)
        }
    );
}

#[test]
fn another_run_in_between_does_not_let_a_round_be_replayed() {
    let one = logged(1, ONE);
    let two = LedgerRound {
        adapter: Digest::of("test adapter", b"of run two"),
        ..logged(2, ONE)
    };
    let mut ledger = MemoryLedger::default();
    ledger.open(&one).unwrap();
    ledger.reveal(&one, LIST).unwrap();
    ledger.open(&two).unwrap();
    assert!(matches!(
        ledger.open(&one),
        Err(LedgerError::Replayed { .. })
    ));
    assert_eq!(
        ledger.reveal(&one, LIST),
        Err(LedgerError::Revealed { round: ONE })
    );
    ledger.reveal(&two, LIST).unwrap();
}

/// A ledger whose disk is full.
struct Full;

impl RoundLedger for Full {
    fn open(&mut self, _: &LedgerRound) -> Result<Option<RoundNumber>, LedgerError> {
        Ok(None)
    }

    fn sign(&mut self, _: &LedgerRound) -> Result<(), LedgerError> {
        Err(LedgerError::Storage {
            message: "full".to_owned(),
        })
    }

    fn reveal(&mut self, _: &LedgerRound, _: Digest) -> Result<(), LedgerError> {
        Err(LedgerError::Storage {
            message: "full".to_owned(),
        })
    }
}

#[test]
fn nothing_is_revealed_that_cannot_be_noted_first() {
    let federation = Federation::new(5);
    let mut signed = federation.opened().shared().uploaded(&federation).signed();
    let first = signed.members.remove(0);
    let refusal = first
        .confirmations(&signed.confirmations, &mut Full)
        .unwrap_err();
    assert!(matches!(
        refused_by_ledger(&refusal),
        LedgerError::Storage { .. }
    ));
}

/// Over a sparse graph fewer than half of a member's holders reveal, so another half could for
/// another list: but T members sign a list, on one adapter in one run.
#[test]
fn lists_on_one_adapter_are_signed_in_one_run() {
    let federation = Federation::new(5);
    let mut ledger = MemoryLedger::default();
    let (here, there) = (LedgerRound::from(&federation.open), RunId([9; 16]));
    let elsewhere = LedgerRound { run: there, ..here };
    let (adapter, run) = (here.adapter, here.run);
    let other_run = LedgerError::OtherRun { adapter, run };
    // Both are open before either list comes.
    ledger.open(&here).unwrap();
    ledger.open(&elsewhere).unwrap();
    ledger.sign(&here).unwrap();
    assert_eq!(ledger.sign(&elsewhere), Err(other_run.clone()));
    let retry = |round: LedgerRound| LedgerRound {
        attempt: Attempt(2),
        ..round
    };
    assert_eq!(ledger.open(&retry(elsewhere)), Err(other_run));
    // In the same run another attempt follows one that came to nothing.
    ledger.open(&retry(here)).unwrap();
    ledger.sign(&retry(here)).unwrap();
    ledger.reveal(&retry(here), LIST).unwrap();
}

#[test]
fn a_list_in_another_run_is_not_signed() {
    let federation = Federation::new(5);
    let mut uploaded = federation.opened().shared().uploaded(&federation);
    let ledger = &mut uploaded.ledgers[0];
    let elsewhere = LedgerRound {
        run: RunId([9; 16]),
        ..LedgerRound::from(&federation.open)
    };
    ledger.sign(&elsewhere).unwrap();
    let proof = uploaded.claims.proof(MemberIndex(0));
    let list = uploaded.claims.list();
    let first = uploaded.members.remove(0);
    let refusal = first.survivors(list, &proof, ledger).unwrap_err();
    let (adapter, run) = (elsewhere.adapter, elsewhere.run);
    assert_eq!(
        refused_by_ledger(&refusal),
        &LedgerError::OtherRun { adapter, run }
    );
}
