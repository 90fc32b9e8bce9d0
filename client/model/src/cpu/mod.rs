//! The model on the processor: kernels on slices of rows, and the passes that they make up.
//!
//! Tasks are divided by rows; what is summed over rows is summed in the tasks' order, so that
//! the same number of threads always gives the same result.

pub(super) mod attention;
pub(super) mod block;
pub(super) mod elementwise;
pub(super) mod frozen;
mod gradients;
pub(super) mod head;
pub(super) mod host;
mod kept;
pub(super) mod passes;
pub(super) mod pool;
pub(super) mod projection;
pub(super) mod rope;
pub(super) mod rows;
pub(super) mod simd;
