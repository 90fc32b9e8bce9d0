//! Turns private records into tokenised examples with a loss mask: step 1 of the round.
//!
//! Records lie in JSON Lines, in JSON arrays or in Parquet. A record is plain text, a prompt with
//! its response, or a chat, which the checkpoint's own Jinja template renders as Transformers
//! renders it. Nothing here depends on the wire, the round or the transport, and no error and no
//! `Debug` shows a record's text.
//!
//! | module | what it does |
//! |---|---|
//! | [`records`], [`parquet`] | read records and say which lines cannot be used |
//! | [`template`] | renders chats; `jinja`, `python_values`, `python_methods` and `template_source` make the engine answer as Python does |
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
//! let turn = Turn { role: "user", content: "Hello".to_owned() };
//! assert_eq!(template.render(&[turn], false)?, "<user>Hello");
//! # Ok::<(), fedlora_data::template::TemplateError>(())
//! ```

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
mod remedy;
pub mod split;
pub mod template;
mod template_source;
mod text_stream;
pub mod tokenizer;

pub use batching::{Batching, plan_epoch};
pub use dataset::{Dataset, FileReport, Survey};
pub use error::DataError;
pub use lengths::{LengthBin, Lengths};
pub use prepare::{DataReport, PrepareError, PrepareOptions, Prepared, prepare};
pub use records::{Content, Problem, Record, Turn};
pub use remedy::Remedy;
pub use split::HeldOut;
pub use text_stream::TextStream;
pub use tokenizer::TextPipeline;
