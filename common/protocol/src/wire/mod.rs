//! What travels: the messages M0 to M6 and those around them, the length-limited codec, and
//! the types that tell a checked message from an unchecked one.

pub mod codec;
pub mod messages;
pub mod session;
pub mod token;
mod verified;
pub mod versions;

pub use verified::{Signable, Unverified, Verified};
