//! Attacks on a federation, played against real members: `fedlora-sim attack`.
//!
//! A malicious aggregator or member speaks the real protocol, in memory, with the machines that
//! the members' program drives: real logs, pinned rosters, keys and masks. Whether a federation
//! holds is judged by what the attacker has in the end, compared with what only the harness knows,
//! and not by whether somebody refused.
//!
//! | file | attacks |
//! |---|---|
//! | `differencing.rs` | two sums on one adapter, with and without the victim |
//! | `lists.rs` | two survivor lists, both shares of one member |
//! | `results.rs` | results that differ, or that no sum gives |
//! | `plans.rs` | plans that lay the victim bare |
//! | `inference.rs` | what two ordinary rounds tell of one member |
//! | `roster.rs` | invented members |
//! | `restored.rs` | logs restored from older copies |
//! | `members.rs` | malicious members |
//! | `poisoning.rs` | a malicious member that steers the step |
//! | `silent.rs` | a member that does nothing |
//!
//! `federation.rs` and `member.rs` are the federation; `round.rs` is a malicious aggregator's round,
//! `honest.rs` an honest one's.

mod differencing;
mod federation;
mod honest;
mod inference;
mod lists;
mod member;
mod members;
mod name;
mod plans;
mod poisoning;
mod report;
mod restored;
mod results;
mod roster;
mod round;
mod silent;
mod unmask;

pub use name::{AttackName, Attacker, selection};
pub use report::{AttackDocument, AttackReport, render};

/// Plays attacks, one after the other.
///
/// # Errors
/// A federation that cannot be set up for an attack: a fault of the harness.
pub fn play(names: &[AttackName]) -> anyhow::Result<AttackDocument> {
    let attacks = names.iter().map(|name| name.play());
    Ok(AttackDocument {
        attacks: attacks.collect::<anyhow::Result<_>>()?,
    })
}

#[cfg(test)]
mod tests;
