//! What `fedlora check` found out, as its JSON document holds it. No record's text is in it.

use fedlora_data::{DataReport, Dropped, FileReport, Lengths, Problem, Warning};
use fedlora_train::{Estimate, Machine};
use serde::Serialize;

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct CheckReport {
    /// Whether training could use all of it.
    pub(super) usable: bool,
    pub(super) base: Option<BaseSection>,
    pub(super) files: Vec<FileReport>,
    /// The records to train on; `None` without a usable base.
    pub(super) training: Option<SetSection>,
    pub(super) held_out: Option<SetSection>,
    pub(super) memory: Option<MemorySection>,
    pub(super) time: Option<TimeSection>,
    pub(super) device: DeviceSection,
    /// Files, base model or memory that cannot be used, in a sentence each.
    pub(super) failures: Vec<String>,
    /// Every line or row that cannot be used.
    pub(super) problems: Vec<ProblemEntry>,
    /// What of the records is left out, by field.
    pub(super) dropped: Vec<Dropped>,
    /// What may be otherwise than its owner means it.
    pub(super) warnings: Vec<Warning>,
}

/// The base model's shape.
#[derive(Debug, Serialize)]
pub(super) struct BaseSection {
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) parameters: u64,
    pub(super) blocks: usize,
    pub(super) hidden: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    pub(super) chat_template: bool,
}

/// What becomes of a set of records.
#[derive(Debug, Serialize)]
pub(super) struct SetSection {
    #[serde(flatten)]
    pub(super) report: DataReport,
    /// Tokens at which examples are cut.
    pub(super) seq: usize,
    /// Lengths before they are cut.
    pub(super) lengths: Option<Lengths>,
}

/// Memory that training takes, in bytes.
#[derive(Debug, Serialize)]
pub(super) struct MemorySection {
    pub(super) rank: usize,
    pub(super) targets: Vec<String>,
    pub(super) batch: usize,
    /// Tokens of the largest batch.
    pub(super) rows: usize,
    #[serde(flatten)]
    pub(super) estimate: Estimate,
    /// How the base is held.
    pub(super) base_dtype: String,
    /// Bytes in all.
    pub(super) total: u64,
    /// The same with `--memory low`.
    pub(super) total_low: u64,
    /// Bytes that can be had on the device, where that is known.
    pub(super) available: Option<u64>,
}

/// How long training takes.
#[derive(Debug, Serialize)]
pub(super) struct TimeSection {
    pub(super) steps_an_epoch: usize,
    pub(super) tokens_an_epoch: usize,
    pub(super) tokens_a_second: Option<f64>,
    pub(super) seconds_an_epoch: Option<f64>,
    /// What the figures rest on: `step` or `product`.
    pub(super) measured: Option<Measured>,
}

/// What a speed was measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Measured {
    /// Optimizer steps on made-up tokens.
    Step,
    /// One matrix product of the model's shape.
    Product,
}

/// The device that training would run on.
#[derive(Debug, Serialize)]
pub(super) struct DeviceSection {
    pub(super) name: String,
    /// Why it cannot be used.
    pub(super) error: Option<String>,
    #[serde(flatten)]
    pub(super) machine: Machine,
}

/// A line or row that cannot be used.
#[derive(Debug, Serialize)]
pub(super) struct ProblemEntry {
    pub(super) file: String,
    pub(super) line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) element: Option<usize>,
    pub(super) problem: String,
}

impl From<&Problem> for ProblemEntry {
    fn from(problem: &Problem) -> Self {
        Self {
            file: problem.place.file.to_string(),
            line: problem.place.line,
            element: problem.place.element,
            problem: problem.what.to_string(),
        }
    }
}
