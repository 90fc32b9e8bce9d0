//! Turns private records into tokenised examples with a loss mask: step 1 of the round.
//!
//! Records lie in JSON Lines, JSON arrays, Parquet, CSV or TSV. A record is plain text, a prompt with
//! its response, or a chat, which the checkpoint's own Jinja template renders as Transformers
//! renders it. Nothing here depends on the wire, the round or the transport, and no error and no
//! `Debug` shows a record's text.
//!
//! | module | what it does |
//! |---|---|
//! | [`records`], [`parquet`], `table` | read records and say which lines cannot be used |
//! | `forms`, `turns`, `chat` | what each field of a record and of a message becomes |
//! | `dropped` | counts what is left out, by field |
//! | [`template`], `responses` | render chats and find the turns to train on; `jinja`, `python_values`, `python_methods` and `template_source` make the engine answer as Python does |
//! | [`tokenizer`] | makes token ids of text, from `tokenizer.json` or from GGUF |
//! | [`mod@prepare`] | makes [`Example`](fedlora_model::Example)s and reports what became of each record |
//! | [`split`] | decides what is held out |
//! | [`batching`] | decides what is computed together |
//! | [`dataset`] | reads a member's files and folders as one set of records |
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use fedlora_data::Turn;
//! use fedlora_data::template::ChatTemplate;
//!
//! let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
//! let template = ChatTemplate::new(source, BTreeMap::new())?;
//! let turn = Turn::new("user", "Hello");
//! assert_eq!(template.render(&[turn], false)?, "<user>Hello");
//! # Ok::<(), fedlora_data::template::TemplateError>(())
//! ```

mod bad_records;
pub mod batching;
mod chat;
mod control_text;
pub mod dataset;
mod dropped;
mod error;
mod files;
mod forms;
mod gguf_tokenizer;
mod jinja;
mod json_array;
mod json_text;
mod lengths;
pub mod parquet;
pub mod prepare;
mod problem;
mod python_methods;
mod python_values;
pub mod records;
mod remedy;
mod responses;
mod special_tokens;
pub mod split;
mod table;
pub mod template;
mod template_source;
mod text_stream;
pub mod tokenizer;
mod turns;

pub use bad_records::BadRecords;
pub use batching::{Batching, plan_epoch};
pub use chat::{Chat, ChatRef, Context, Turn};
pub use dataset::{Dataset, FileReport, Survey};
pub use dropped::{Cause, Dropped, LeftOut, Warning};
pub use error::DataError;
pub use lengths::{LengthBin, Lengths};
pub use prepare::{DataReport, PrepareError, PrepareOptions, Prepared, prepare};
pub use records::{Content, Problem, Record};
pub use remedy::Remedy;
pub use split::HeldOut;
pub use text_stream::TextStream;
pub use tokenizer::TextPipeline;
