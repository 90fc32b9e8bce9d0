//! The operator's half of fedlora: it forms the cohort, coordinates the rounds, adds masked
//! updates up, and publishes the merged adapter. It never holds a base model, a tokenizer, a
//! record, or a single member's delta.

pub mod adapters;
pub mod audit;
pub mod audit_log;
mod blocking;
pub mod ca;
mod certificates;
pub mod cli;
mod clock;
pub mod config;
pub mod daemon;
pub mod database;
pub mod directory;
pub mod engine;
mod enrol;
mod http;
pub mod monitor;
pub mod operators;
pub mod optimizer;
pub mod publish;
pub mod queue;
pub mod registry;
mod remedy;
pub mod retention;
pub mod run_directory;
pub mod run_list;
pub mod run_record;
mod server;
mod serving;
#[cfg(feature = "simulation")]
pub mod simulated;
pub mod status;
pub mod store;
#[cfg(test)]
mod test_operator;
pub mod web;

pub use clock::{Clock, SystemClock};
pub use daemon::{Aggregator, ServeError};
pub use remedy::Remedy;
