//! What every other crate stands on: digests, points in time, exit codes, bytes, and files that are
//! written whole or not at all.

pub mod bytes;
pub mod clock;
pub mod digest;
pub mod exit;
pub mod files;
