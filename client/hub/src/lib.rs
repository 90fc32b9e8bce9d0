//! Base models by their name on the hub: `owner/name[@revision][:file.gguf]` to files on this
//! machine.
//!
//! [`HubConfig`] is what the environment says (the names are those of Python's
//! `huggingface_hub`), [`fetch`] brings what is missing into the cache that the Python tools use
//! too, and gives its place. Names of the cache and the answers' types are the `hf-hub` crate's;
//! the transfer is ours, over the HTTP library that it brings (see `docs/DECISIONS.md`). This is
//! the one part of the client that speaks to a machine other than the aggregator; it knows
//! nothing of records, adapters or training, and sends nothing but requests for files.
//!
//! ```no_run
//! use fedlora_hub::{HubConfig, HubName, fetch};
//!
//! let name: HubName = "HuggingFaceTB/SmolLM2-135M-Instruct".parse()?;
//! let fetched = fetch(&name, &HubConfig::from_env()?, &mut ())?;
//! println!("{fetched:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod config;
mod error;
mod fetch;
mod name;
mod progress;
mod remedy;
mod select;
mod transfer;
mod verify;

#[cfg(test)]
mod tests;

pub use config::{HubConfig, Token};
pub use error::HubError;
pub use fetch::{Fetched, fetch};
pub use name::{HubName, NameError};
pub use progress::{FetchEvent, FetchProgress};
pub use remedy::Remedy;
