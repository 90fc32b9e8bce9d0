//! The member's half of a round: one struct a phase, each handed by value into the next, so
//! that no step can be taken twice or out of order. A refusal ends the round for this member
//! and wipes its keys; the others continue.
//!
//! | phase | waits for | gives |
//! |---|---|---|
//! | [`RoundContext::open`] | M0 | M1, own keys; or a commitment |
//! | [`ExpectCommitments`] | the others' commitments, where there is a beacon | M1 |
//! | [`ExpectPeerKeys`] | M1 of the neighbours | M2, sealed shares |
//! | [`ExpectPeerShares`] | M2 of the neighbours | whose shares it holds |
//! | [`ExpectDealers`] | among whom masks are | the masker |
//! | [`ReadyToMask`] | the encoded update | M3 |
//! | [`ExpectSurvivors`] | the survivor list | M4, a signature |
//! | [`ExpectConfirmations`] | the others' signatures | M5, shares |
//! | [`ExpectResult`] | M6 | |

mod context;
mod held;
mod keys;
mod ledger;
mod open;
mod refusal;
mod reveal;
mod shares;
mod step;
mod update;

pub use context::{Expectation, RoundContext};
pub use keys::ExpectPeerKeys;
pub use ledger::{
    LedgerEntries, LedgerError, LedgerReveal, LedgerRound, LedgerRun, MemoryLedger, RoundLedger,
};
pub use open::{ExpectCommitments, Opened};
pub use refusal::Refusal;
pub use reveal::{ExpectConfirmations, ExpectResult, ExpectSurvivors, check_result};
pub use shares::{ExpectDealers, ExpectPeerShares};
pub use step::AllowedStep;
pub use update::ReadyToMask;

#[cfg(test)]
mod tests;
