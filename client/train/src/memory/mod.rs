//! The memory that a training takes, computed before it begins, and what would make it fit.

pub mod estimate;
pub(crate) mod fit;

pub use fit::{DoesNotFit, Plan};
