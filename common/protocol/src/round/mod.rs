//! Both halves of a round, pure: no socket, no file, no clock. The programs' shells feed
//! them messages and the time, and carry out what they ask for.

pub mod coordinator;
pub mod participant;

#[cfg(test)]
mod harness;
