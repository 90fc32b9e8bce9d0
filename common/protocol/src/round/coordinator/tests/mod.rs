//! The coordinator: whole rounds, the rejects, and random lists of inputs.

mod faults;
mod operations;
mod rejects;
mod rounds;
