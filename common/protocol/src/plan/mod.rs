//! What a run is: the plan that the operator writes and signs, the roster of its members,
//! and the floors that each member sets for itself.

mod factors;
mod floors;
mod run_plan;
mod roster;

pub use factors::FactorSchedule;
pub use floors::{FloorBreach, Floors};
pub use run_plan::{
    AdapterPlan, AggregationPlan, BasePlan, LearningRateSchedule, PlanError, RunPlan, SignedPlan,
    Timeouts, TrainingPlan,
};
pub use roster::{Roster, RosterEntry, RosterError};
