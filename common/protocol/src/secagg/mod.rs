//! Secure aggregation: masking, the running sum, and recovery from dropouts. Step 5 of the
//! round, and the aggregator's half of steps 8 and 9.
//!
//! Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning",
//! CCS 2017, the variant against active adversaries (figure 4 there); above 64 members over a
//! sparse graph of neighbours (Bell et al., CCS 2020). Member i uploads
//! `x_i + PRG(b_i) + sum over neighbours j of (i < j ? + : -) PRG(s_ij)` modulo 2^b: the pair masks
//! cancel in the sum, the self-masks b_i are removed by shares of them, and the pair masks of
//! members that dropped out by shares of the roots of their mask keys.

pub mod graph;
pub mod group_policy;
pub mod groups;
pub mod mask;
pub mod pack;
pub mod pair;
pub mod parameters;
pub mod policy;
pub mod recovery;
mod shuffle;
pub mod sum;

pub use graph::{GraphError, MAX_HOLDERS, NeighbourGraph};
pub use group_policy::{GroupPolicy, GroupPolicyError};
pub use groups::Groups;
pub use mask::{MaskedUpdate, Masker};
pub use pair::PairContext;
pub use parameters::{ParameterError, SparseParameters, dropouts};
pub use policy::{Assumptions, CohortPolicy, MAX_ATTEMPTS, MAX_COMPLETE, MAX_MEMBERS, PolicyError};
pub use recovery::{Dealt, DealtSecrets, RecoveryError, Unmasking};
pub use sum::{Adding, RunningSum, RunningSums};
