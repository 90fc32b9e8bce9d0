//! The member's half of fedlora: private data, the model, local training, the masked
//! update, and taking part in rounds.

pub mod data;
pub mod model;
pub mod training;
