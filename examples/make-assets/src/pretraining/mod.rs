//! How the embedded base model is made: its text as tokens, its first weights, the training
//! of all parameters, the n-gram entropies it is measured against, and its card.

pub mod card;
pub mod corpus;
pub mod entropy;
pub mod init;
pub mod training;
