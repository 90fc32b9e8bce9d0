//! The simulation of a whole federation on one machine.

pub mod simulation;
