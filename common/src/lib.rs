//! What every other crate stands on: digests, points in time and exit codes.

pub mod clock;
pub mod digest;
pub mod exit;
