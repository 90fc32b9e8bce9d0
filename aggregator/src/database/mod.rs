//! A database and an object store behind the operator's directory, and a standby.
//!
//! The directory stays what the aggregator reads; the store is what outlives the host. Each change is
//! made in the database first, in one transaction that also asks whether this process still has the
//! lease. Opening a directory makes it what the database says. Keys and configuration are never there.
//!
//! | module | owns |
//! |---|---|
//! | `address` | where the store is, printed without passwords |
//! | `error` | why it cannot be used |
//! | `sql` | the database's connections and schema |
//! | `lease` | who may write |
//! | `files` | the rows of files |
//! | `objects` | the content of large files |
//! | `loose` | objects that no file names |
//! | `folder` | which files are kept |
//! | `mirror` | each change, made in the database |
//! | `hydrate` | the directory, made what the database says |
//! | `note` | what this host remembers of the database |
//! | `shared` | opening a store: to serve, for a command, to import or check |
//! | `worker` | the threads that do the work |

mod address;
mod error;
mod note;

#[cfg(not(feature = "database"))]
mod absent;
#[cfg(feature = "database")]
mod files;
#[cfg(feature = "database")]
mod folder;
#[cfg(feature = "database")]
mod hydrate;
#[cfg(feature = "database")]
mod lease;
#[cfg(feature = "database")]
mod loose;
#[cfg(feature = "database")]
mod mirror;
#[cfg(feature = "database")]
mod objects;
#[cfg(feature = "database")]
mod shared;
#[cfg(feature = "database")]
mod sql;
#[cfg(feature = "database")]
mod worker;

#[cfg(not(feature = "database"))]
pub use absent::{Database, SharedStore};
#[cfg(feature = "database")]
pub use shared::{Database, SharedStore};

pub use address::{StoreAddress, StoreConfig};
pub use error::StoreError;

pub(crate) use address::without_passwords;
pub(crate) use note::StoreNote;

use std::sync::Arc;

use serde::Serialize;

/// What became of an attempt to serve a federation whose directory is in a store.
#[derive(Debug)]
pub enum Attempt {
    /// This process serves it; the directory is what the database says.
    Serves(Arc<Database>),
    /// Another one does: this one stands by, and its directory follows.
    StandsBy {
        /// The name of the other's host.
        host: String,
    },
}

/// What an import stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A file that is not in the directory as the database has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Below the operator's directory.
    pub path: String,
    /// In which way.
    pub kind: DifferenceKind,
}

/// In which way a file differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The directory lacks it.
    Missing,
    /// It has another content.
    Differs,
    /// The database lacks it.
    NotInDatabase,
    /// The place for objects lacks its content.
    ObjectMissing,
}

impl DifferenceKind {
    /// What is wrong, in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Missing => "missing in the directory",
            Self::Differs => "differs from the database",
            Self::NotInDatabase => "not in the database",
            Self::ObjectMissing => "its object is missing",
        }
    }
}

/// What a comparison of directory and store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Files that differ.
    pub differences: Vec<Difference>,
    /// Files in the database.
    pub files: usize,
    /// How many of these are single masked updates: of a round that is open, or kept for the audit.
    pub masked_updates: usize,
    /// Objects that are to be deleted, or are being stored.
    pub loose_objects: usize,
    /// Objects that neither a file nor a note names.
    pub unknown_objects: usize,
    /// The host whose aggregator serves the federation; nothing where none does.
    pub served_by: Option<String>,
}

/// How long a database or an object store may be away before a change fails.
#[cfg(feature = "database")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
/// Bytes up to which a file's content is in its row.
#[cfg(feature = "database")]
const INLINE: usize = 48 * 1024;

#[cfg(all(test, feature = "database"))]
mod tests;
