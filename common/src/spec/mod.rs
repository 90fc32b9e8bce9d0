//! What a run is: the plan that the operator writes and signs, the roster of its members,
//! and the floors that each member sets for itself.

mod floors;
mod plan;
mod roster;

pub use floors::{FloorBreach, Floors};
pub use plan::{
    AdapterPlan, AggregationPlan, BasePlan, LearningRateSchedule, PlanError, RunPlan, SignedPlan,
    Timeouts, TrainingPlan,
};
pub use roster::{Roster, RosterEntry, RosterError};
