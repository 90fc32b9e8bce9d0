//! What a member keeps to itself over the rounds of a run: it never leaves the member, and is not
//! written to the disk, so that a member that restarts begins it anew.
//!
//! | file | owns |
//! |---|---|
//! | `factor.rs` | the factor B, where the plan shares A alone |
//! | `adapter.rs` | a whole adapter, where the plan's members learn beside the rest of the world |

mod adapter;
mod factor;

use fedlora_adapter::{Adapter, AdapterError};
use fedlora_protocol::plan::RunPlan;
use fedlora_protocol::round::member::{RoundShare, RoundTask};
use fedlora_train::{Beside, TrainError};

use adapter::OwnAdapter;
use factor::OwnFactor;

/// What a member keeps to itself, as far as the plan asks for it.
#[derive(Debug, Default)]
pub struct Own {
    factor: OwnFactor,
    adapter: OwnAdapter,
}

/// What a training begins with.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// The adapter that is trained.
    pub(crate) adapter: Adapter,
    /// The adapter that its change is told from: another one, where some of the change before did
    /// not travel.
    pub(crate) sent: Adapter,
    /// The frozen adapter that it stands beside.
    pub(crate) beside: Option<Beside>,
}

impl Start {
    /// A training of one adapter, whose whole change is told.
    pub(crate) fn of(adapter: Adapter) -> Self {
        Self {
            sent: adapter.clone(),
            adapter,
            beside: None,
        }
    }

    /// The adapter that this member would have without the training.
    pub(crate) fn whole(&self) -> Result<Adapter, TrainError> {
        match &self.beside {
            Some(beside) => beside.whole(&self.adapter, &beside.weights),
            None => Ok(self.adapter.clone()),
        }
    }
}

impl Own {
    /// What a round's training begins with.
    pub(crate) fn start(&self, plan: &RunPlan, task: &RoundTask) -> Result<Start, AdapterError> {
        self.adapter.settle(plan, &task.adapter, &task.since)?;
        self.start_at(plan, &task.adapter)
    }

    /// The run is over: its newest global adapter, and what became of the rounds since the last task.
    pub(crate) fn end(
        &self,
        plan: &RunPlan,
        newest: &Adapter,
        since: &[RoundShare],
    ) -> Result<(), AdapterError> {
        self.adapter.end(plan, newest, since)
    }

    /// What training at home begins with, from this global adapter.
    pub(crate) fn start_at(&self, plan: &RunPlan, global: &Adapter) -> Result<Start, AdapterError> {
        match self.adapter.beside(global, plan)? {
            Some(start) => Ok(start),
            None => Ok(Start::of(self.factor.in_place_of(global, plan)?)),
        }
    }

    /// Keeps what this member has trained in a round, and what of it travels.
    pub(crate) fn keep(&self, plan: &RunPlan, round: adapter::Trained<'_>) {
        self.factor.keep(round.adapter, plan);
        self.adapter.keep(plan, round);
    }
}

pub(crate) use adapter::Trained;
