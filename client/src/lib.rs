//! The member's half of fedlora: private data, the model, local training, the masked
//! update, and taking part in rounds.

pub mod agent;
pub mod base;
pub mod certificate;
pub mod cli;
pub mod directory;
pub mod enrol;
pub mod examples;
pub mod federation;
pub mod fetch;
pub mod ledger;
mod local_training;
pub mod own;
pub mod personal;
pub mod proxy;
pub mod receipts;
pub mod remedy;
mod repeats;
pub mod roster_pin;
pub mod update;
mod vote;
