//! The coordinator: whole rounds, the rejects, and random lists of inputs.

mod operations;
mod rejects;
mod rounds;
