//! What a run is: the plan that the operator writes and signs, the roster of its members,
//! and the floors that each member sets for itself.

mod aggregation;
mod clip;
mod factors;
mod floors;
mod loss_curve;
mod personalisation;
mod robust;
mod rollback;
mod roster;
mod roster_change;
mod roster_sheet;
mod roster_words;
mod run_end;
mod run_plan;
mod server;
mod stopping;
mod training;

pub use aggregation::{AggregationPlan, Weighting};
pub use clip::ClipSchedule;
pub use factors::FactorSchedule;
pub use floors::{FloorBreach, FloorValue, Floors};
pub use loss_curve::LossCurve;
pub use personalisation::{PersonalisationMethod, PersonalisationPlan};
pub use robust::{RobustPlan, RobustRuleName};
pub use rollback::RollbackPlan;
pub use roster::{Roster, RosterEntry, RosterError};
pub use roster_change::RosterChange;
pub use roster_sheet::{RosterSheet, SheetMember};
pub use roster_words::{ROSTER_WORDS, RosterWords};
pub use run_end::RunEnd;
pub use run_plan::{AdapterPlan, BasePlan, PlanError, RunPlan, SignedPlan, Timeouts};
pub use server::{SecondMoment, ServerOptimizerName, ServerPlan, ServerRule, ServerSettings};
pub use stopping::StoppingPlan;
pub use training::{LearningRateSchedule, OptimizerState, TrainingPlan};
