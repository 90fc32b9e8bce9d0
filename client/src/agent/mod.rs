//! A member that waits for runs and takes part where its own rules say so.
//!
//! | file | owns |
//! |---|---|
//! | `rules.rs` | `[agent]` in `fedlora.toml`, and what it says of a plan |
//! | `files.rs` | the files by which the agent and its user talk: the plan that waits, the answer, the state |
//! | `waiting.rs` | waiting for a run that the rules or the user accept |

mod files;
mod rules;
mod waiting;

pub use files::{AgentFiles, AgentPhase, AgentState, Decision, PendingPlan};
pub use rules::{AgentConfig, Hours, HoursError, Judgement, PlanRule, Refusal};
pub use waiting::{AcceptedRun, Agent, AgentError, AgentNote, begun_run, left_open};
