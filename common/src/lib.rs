//! What every other crate stands on: digests, points in time, exit codes, and the adapter.

pub mod adapter;
pub mod clock;
pub mod digest;
pub mod exit;
