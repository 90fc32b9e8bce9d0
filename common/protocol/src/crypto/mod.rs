//! The cryptographic primitives, one a file. Nothing here knows of rounds or members.
//!
//! Randomness comes in as an argument; in the programs it is the operating system's.

pub mod agreement;
mod gf256;
pub mod keys;
pub mod merkle;
pub mod prg;
pub mod seal;
pub mod shamir;
pub mod sign;
pub mod x25519;

use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

/// The operating system's random number generator. It panics where the system has none to
/// give, for then no key can be made.
pub fn os_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
