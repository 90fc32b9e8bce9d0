//! The federation's protocol, pure: no socket, no file, no clock. Identifiers, the run plan,
//! fixed point, the cryptography, secure aggregation, the wire format, and both halves of a round.

pub mod crypto;
pub mod fixed;
pub mod ids;
pub mod plan;
pub mod receipt;
mod remedy;
pub mod round;
pub mod secagg;
pub mod wire;

pub use remedy::Remedy;
