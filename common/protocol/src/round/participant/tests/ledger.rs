//! Both shares of one member, asked for one by one: in another attempt, in another life of
//! the process, and in an earlier run.

use super::{offered, refused_by_ledger};
use crate::ids::{Attempt, RoundNumber, RunId};
use crate::round::harness::Federation;
use crate::round::participant::{LedgerError, MemoryLedger, RoundLedger};
use crate::wire::messages::Open;

const ONE: RoundNumber = RoundNumber(1);

#[test]
fn after_a_reveal_no_other_attempt_of_the_round_opens() {
    let federation = Federation::new(5);
    let mut signed = federation
        .opened()
        .shared()
        .uploaded(&federation)
        .signed(&federation);
    let first = signed.members.remove(0);
    let ledger = &mut signed.ledgers[0];
    first.confirmations(signed.confirmations, ledger).unwrap();

    let retry = Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    };
    let refusal = offered(&federation, ledger, retry).unwrap_err();
    assert_eq!(
        refused_by_ledger(&refusal),
        &LedgerError::Revealed { round: ONE }
    );
    let next = Open {
        round: RoundNumber(2),
        ..federation.open.clone()
    };
    offered(&federation, ledger, next).unwrap();
}

/// The member's state machine is copied by restoring a snapshot of its machine, the ledger is
/// not: the second reveal is refused.
#[test]
fn a_second_reveal_is_refused_whatever_the_list() {
    let federation = Federation::new(5);
    let twice = || {
        federation
            .opened()
            .shared()
            .uploaded(&federation)
            .signed(&federation)
    };
    let (mut one, mut two) = (twice(), twice());
    let ledger = &mut one.ledgers[0];
    let first = one.members.remove(0);
    first.confirmations(one.confirmations, ledger).unwrap();
    let again = two.members.remove(0);
    let refusal = again.confirmations(two.confirmations, ledger).unwrap_err();
    assert_eq!(
        refused_by_ledger(&refusal),
        &LedgerError::Revealed { round: ONE }
    );
}

#[test]
fn an_attempt_that_was_left_for_a_newer_one_reveals_nothing() {
    let federation = Federation::new(5);
    let mut signed = federation
        .opened()
        .shared()
        .uploaded(&federation)
        .signed(&federation);
    let ledger = &mut signed.ledgers[0];
    let retry = Open {
        attempt: Attempt(2),
        ..federation.open.clone()
    };
    offered(&federation, ledger, retry).unwrap();
    let first = signed.members.remove(0);
    let refusal = first
        .confirmations(signed.confirmations, ledger)
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
    let (one, two) = (RunId([1; 16]), RunId([2; 16]));
    let mut ledger = MemoryLedger::default();
    ledger.open(one, ONE, Attempt(1)).unwrap();
    ledger.reveal(one, ONE, Attempt(1)).unwrap();
    ledger.open(two, ONE, Attempt(1)).unwrap();
    assert!(matches!(
        ledger.open(one, ONE, Attempt(1)),
        Err(LedgerError::Replayed { .. })
    ));
    assert_eq!(
        ledger.reveal(one, ONE, Attempt(1)),
        Err(LedgerError::Revealed { round: ONE })
    );
    ledger.reveal(two, ONE, Attempt(1)).unwrap();
}

/// A ledger whose disk is full.
struct Full;

impl RoundLedger for Full {
    fn open(&mut self, _: RunId, _: RoundNumber, _: Attempt) -> Result<(), LedgerError> {
        Ok(())
    }

    fn reveal(&mut self, _: RunId, _: RoundNumber, _: Attempt) -> Result<(), LedgerError> {
        Err(LedgerError::Storage {
            message: "full".to_owned(),
        })
    }
}

#[test]
fn nothing_is_revealed_that_cannot_be_noted_first() {
    let federation = Federation::new(5);
    let mut signed = federation
        .opened()
        .shared()
        .uploaded(&federation)
        .signed(&federation);
    let first = signed.members.remove(0);
    let refusal = first
        .confirmations(signed.confirmations, &mut Full)
        .unwrap_err();
    assert!(matches!(
        refused_by_ledger(&refusal),
        LedgerError::Storage { .. }
    ));
}
