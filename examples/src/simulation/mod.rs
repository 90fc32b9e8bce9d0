//! A whole federation on one machine: the real aggregator and the real members' code, real
//! certificates, real QUIC over the loopback, real secure aggregation. Members share one copy
//! of the frozen base model.

mod assets;
mod base;
mod baselines;
mod cli;
mod compare;
mod data;
mod drift;
mod evaluate;
mod faults;
mod federation;
mod folder;
mod options;
mod page;
mod partition;
mod poison;
mod progress;
mod race;
mod report;
mod roles;
mod run;
mod scene;
mod table;
mod tasks;
mod watched;

pub(crate) use cli::simulate;
pub use compare::Sweep;
pub use data::{Institution, MemberRecords, SimulationData};
pub use options::{DropSpec, Options, PlannedDrop};
pub use partition::Partition;
pub use poison::{Poison, PoisonSpec};
pub use report::{
    Choice, ClassScore, ClassificationFigures, CurveFigures, Document, EvaluationFigures,
    GenerationFigures, MemberFigures, PoisonFigures, RoundFigures, Scores,
};
pub use run::{SimulationError, run};
pub use table::{render, render_comparison};
pub use tasks::TaskKind;
