//! The simulation of a whole federation, and what made the embedded model and data.

pub mod cwe;
pub mod pretraining;
