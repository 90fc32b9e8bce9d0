//! What the fuzz targets run. The targets themselves, in `common/fuzz`, add a fuzzing runtime and
//! are outside the workspace; here the same functions are tests as well, with the corpus as input.
//!
//! | module | takes bytes as |
//! |---|---|
//! | [`decoders`] | a message, file or text from elsewhere |
//! | [`coordinator`] | a script of what hostile members send to the aggregator's half |
//! | [`member`] | a script of what a hostile aggregator sends to a member's half |
//!
//! [`Target`] lists them by name.

pub mod coordinator;
pub mod decoders;
mod federation;
pub mod member;
mod party;
mod recorded;
mod script;
mod seeds;
mod targets;

pub use seeds::seeds;
pub use targets::{TARGETS, Target};
