//! What a user may do about an error of this crate. The command line turns these into hints.

use crate::plan::FloorValue;

/// What would help against an error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Remedy {
    /// Relax this member's own floor or ceiling, or ask the operator for another plan.
    RelaxFloor {
        /// The field of [`Floors`](crate::plan::Floors), such as `rank`.
        floor: &'static str,
        /// The value in the plan, which the floor or ceiling would have to admit.
        plan: FloorValue,
        /// The member's own value.
        own: FloorValue,
    },
}
