//! What the members' client and the aggregator share: identifiers, the adapter's
//! layout and files, fixed point, the cryptography, secure aggregation, the run plan,
//! the wire format, and both halves of the round.

pub mod adapter;
pub mod crypto;
pub mod exit;
pub mod fixed;
pub mod ids;
pub mod round;
pub mod secagg;
pub mod spec;
pub mod time;
pub mod wire;
