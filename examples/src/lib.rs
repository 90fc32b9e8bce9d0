//! The simulation of a whole federation on one machine, and attacks on one.

pub mod attacks;
mod cli;
mod linear;
mod secagg;
pub mod simulation;

pub use cli::Cli;
