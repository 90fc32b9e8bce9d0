//! What a simulation runs on, in all its parts.

use fedlora_protocol::plan::RunPlan;
use fedlora_train::Engine;

use super::data::SimulationData;
use super::progress::Bars;

/// Base, members, plan and machine of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) engine: &'a Engine,
    pub(super) data: &'a SimulationData,
    pub(super) plan: &'a RunPlan,
    /// Members that train at a time.
    pub(super) jobs: usize,
    pub(super) bars: &'a Bars,
}
