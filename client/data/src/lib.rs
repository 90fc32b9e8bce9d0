//! From private records to tokenised examples. Step 1 of the round.
//!
//! `files` tells what lies at a path; [`records`] takes records out of JSON Lines, `json_array`
//! out of JSON arrays, [`parquet`] out of Parquet. [`template`] renders chats as the
//! checkpoint's own template says, [`tokenizer`] makes token ids of them, [`mod@prepare`] makes
//! scored [`Example`](fedlora_model::Example)s, [`split`] decides what is held out, [`batching`] what is computed
//! together, and [`dataset`] puts these together. Nothing here may use the wire, round or
//! transport modules, and no error or `Debug` shows a record's text.

pub mod batching;
pub mod dataset;
mod error;
mod files;
mod gguf_tokenizer;
mod jinja;
mod json_array;
mod lengths;
pub mod parquet;
pub mod prepare;
mod python_methods;
mod python_values;
pub mod records;
pub mod split;
pub mod template;
mod template_source;
mod text_stream;
pub mod tokenizer;

pub use batching::{Batching, plan_epoch};
pub use dataset::{Dataset, FileReport, Survey};
pub use error::DataError;
pub use lengths::{Bin, Lengths};
pub use prepare::{DataReport, PrepareError, PrepareOptions, Prepared, prepare};
pub use records::{Content, Problem, Record, Turn};
pub use split::HeldOut;
pub use text_stream::TextStream;
pub use tokenizer::TextPipeline;
