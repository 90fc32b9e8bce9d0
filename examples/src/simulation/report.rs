//! The simulation's outcome, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// The one document that `--format json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// The base model.
    pub base: String,
    /// The seed.
    pub seed: u64,
    /// Which factors are trained: `alternating`, `freeze-a` or `both`.
    pub factors: fedlora_protocol::plan::FactorSchedule,
    /// The plan's groups and their rule; none where all are in one sum.
    pub robust: Option<fedlora_protocol::plan::RobustPlan>,
    /// The members.
    pub members: Vec<MemberFigures>,
    /// The rounds.
    pub rounds: Vec<RoundFigures>,
    /// Held-out perplexities.
    pub eval: EvaluationFigures,
    /// The final adapter, in PEFT's form.
    pub adapter_dir: PathBuf,
    /// Seconds that all of it took.
    pub wall_seconds: f64,
}

/// One member.
#[derive(Debug, Clone, Serialize)]
pub struct MemberFigures {
    /// Its name.
    pub name: String,
    /// Examples that it trains on.
    pub training_examples: usize,
    /// Examples that it is evaluated on.
    pub held_out_examples: usize,
    /// Rounds in whose sum it is.
    pub rounds: u32,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct RoundFigures {
    /// Its number.
    pub round: u32,
    /// Tries that it took.
    pub attempts: u32,
    /// Members in the sum.
    pub survivors: Vec<String>,
    /// Members that are not.
    pub dropped: Vec<String>,
    /// Weighted mean training loss, from the masked sum.
    pub train_loss: Option<f32>,
    /// Weighted mean held-out loss of the adapter that the round began with, from the masked
    /// sum.
    pub eval_loss: Option<f32>,
    /// The sum of the members' example counts, from the masked sum.
    pub total_weight: u64,
    /// Bytes that all members sent.
    pub bytes_up: u64,
    /// Bytes that all members received.
    pub bytes_down: u64,
    /// Whether the unmasked sum is, bit for bit, the sum of the survivors' encoded updates;
    /// nothing where it was not checked.
    pub sum_exact: Option<bool>,
    /// Seconds by stage: the longest member's, and `total` for the round.
    pub seconds: BTreeMap<String, f64>,
}

/// Held-out perplexities of the four ways.
#[derive(Debug, Clone, Serialize)]
pub struct EvaluationFigures {
    /// The base model alone.
    pub base: Scores,
    /// Each member alone, on the same budget.
    pub local_only: Option<Scores>,
    /// The federation.
    pub federated: Scores,
    /// All records in one place, on the same budget.
    pub centralised: Option<Scores>,
}

/// Held-out perplexities of one way.
#[derive(Debug, Clone, Serialize)]
pub struct Scores {
    /// On all held-out data; for members alone the geometric mean over their adapters.
    pub pooled: f64,
    /// On each member's own held-out data.
    pub by_member: BTreeMap<String, f64>,
}
