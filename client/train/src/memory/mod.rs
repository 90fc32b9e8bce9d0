//! Memory and operations of a training, estimated before it begins, and what makes it fit.

pub(crate) mod estimate;
pub(crate) mod fit;
pub(crate) mod workload;

pub use estimate::{Estimate, WeightBytes};
pub use fit::{DoesNotFit, MemoryPlan};
pub use workload::Workload;
