//! What made the embedded base model and records: MITRE's CWE catalogue to pairs of questions and
//! answers ([`cwe`]), and the pretraining of the base on its prose ([`pretraining`]).

pub mod cwe;
pub mod pretraining;
