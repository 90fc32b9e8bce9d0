//! The run that a member has agreed to, before it loads anything for it.

use fedlora_common::digest::Digest;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RunPlan;

/// A run and its plan, as the member was shown them when it agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedRun {
    /// The run.
    pub run: RunId,
    /// The plan's digest.
    pub plan: Digest,
}

impl ExpectedRun {
    /// Whether this is what the aggregator shows now.
    pub(super) fn is(&self, run: RunId, plan: &RunPlan) -> bool {
        self.run == run && self.plan == plan.digest()
    }
}
