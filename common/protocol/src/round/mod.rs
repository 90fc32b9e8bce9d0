//! Both halves of a round, pure: no socket, no file, no clock. The programs' shells feed
//! them messages and the time, and carry out what they ask for.
//!
//! [`coordinator`] is the aggregator's half. [`participant`] holds the member's steps within a
//! round, and [`member`] the machine that walks through them over all rounds of a run.

pub mod coordinator;
mod dealt;
pub mod evidence;
mod joined;
pub mod member;
pub mod participant;

pub use dealt::dealt_by;

#[cfg(test)]
mod harness;
#[cfg(test)]
mod tests;
