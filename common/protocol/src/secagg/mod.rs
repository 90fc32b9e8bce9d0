//! Secure aggregation: masking, the running sum, and recovery from dropouts. Step 5 of the
//! round, and the aggregator's half of steps 8 and 9.
//!
//! Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
//! CCS 2017, the variant against active adversaries (figure 4 there). Member i uploads
//! `x_i + PRG(b_i) + sum over j of (i < j ? + : -) PRG(s_ij)` modulo 2^b: the pair masks
//! cancel in the sum, the self-masks b_i are removed by shares of them, and the pair masks of
//! members that dropped out by shares of their mask secrets.

pub mod mask;
pub mod pack;
pub mod policy;
pub mod recovery;
pub mod sum;

pub use mask::{MaskedUpdate, Masker, WeakPeer};
pub use policy::{CohortPolicy, PolicyError};
pub use recovery::{Committed, RecoveryError, Revealed, Unmasking};
pub use sum::RunningSum;
