//! The member against a malicious aggregator: each attack of the threat model, and the
//! member that refuses it.

mod beacon;
mod confirm;
mod digests;
mod groups;
mod keys;
mod ledger;
mod open;
mod result;
mod shares;
mod sparse;

use super::{LedgerError, MemoryLedger, Refusal};
use crate::crypto::os_rng;
use crate::round::harness::Federation;
use crate::wire::messages::Open;

/// What the first member says to an M0.
fn offered(federation: &Federation, ledger: &mut MemoryLedger, open: Open) -> Result<(), Refusal> {
    federation.contexts[0]
        .open(open, &federation.expected, ledger, &mut os_rng())
        .map(|_| ())
}

fn refused_by_ledger(refusal: &Refusal) -> &LedgerError {
    match refusal {
        Refusal::Ledger(error) => error,
        other => panic!("refused for another reason: {other}"),
    }
}
