//! From private records to tokenised examples. Step 1 of the round.
//!
//! [`records`] reads JSON Lines, [`template`] renders chats as the checkpoint's own template
//! says, [`tokenizer`] makes token ids of them, [`prepare`] makes scored [`Example`]s,
//! [`split`] decides what is held out, and [`dataset`] puts these together. Nothing here may
//! use the wire, round or transport modules, and no error or `Debug` shows a record's text.

pub mod batching;
pub mod dataset;
mod example;
mod jinja;
pub mod prepare;
pub mod records;
pub mod split;
pub mod template;
mod text_stream;
pub mod tokenizer;

pub use batching::{Batching, plan_epoch};
pub use dataset::{DataError, Dataset};
pub use example::Example;
pub use prepare::{DataReport, PrepareOptions};
pub use records::{Content, Record, Turn};
pub use split::HeldOut;
pub use text_stream::TextStream;
pub use tokenizer::TextPipeline;
