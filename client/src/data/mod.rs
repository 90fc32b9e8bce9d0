//! From private records to tokenised examples. Step 1 of the round.

mod example;

pub use example::Example;
