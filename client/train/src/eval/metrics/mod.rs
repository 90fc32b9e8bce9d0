//! Scores of predictions against references: [`bleu`] and [`rouge`] for free text, [`classes`]
//! for closed label sets. Each gives the figures of the Python package that papers report.
//!
//! Pure functions of texts and numbers. Nothing here knows models, files or the network.

pub mod bleu;
pub mod classes;
pub mod rouge;

pub use bleu::{Bleu, corpus_bleu};
pub use classes::{accuracy, macro_f1};
pub use rouge::{Rouge, Score};

#[cfg(test)]
mod tests;
