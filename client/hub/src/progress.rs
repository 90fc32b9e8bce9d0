//! What a fetch tells whoever watches it.

use std::time::Duration;

/// How a fetch gets on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// Weights are about to be fetched. What is here already is not in it.
    Planned {
        /// What was asked for.
        name: String,
        /// Files.
        files: usize,
        /// Bytes of these, with what an earlier try left.
        bytes: u64,
    },
    /// A file begins.
    File {
        /// Its name in the repository.
        file: String,
        /// Bytes of it that an earlier try left.
        start: u64,
        /// Its bytes.
        size: u64,
    },
    /// Bytes came.
    Received {
        /// How many.
        bytes: u64,
    },
    /// A file is here and is the one announced.
    Fetched {
        /// Its name in the repository.
        file: String,
        /// Its bytes.
        size: u64,
    },
    /// Something failed and is tried again.
    Retrying {
        /// What failed.
        why: String,
        /// When.
        wait: Duration,
    },
    /// Another process fetches the same file.
    Waiting {
        /// Its name in the repository.
        file: String,
    },
    /// The hub cannot be asked; what was fetched before is used.
    Stale {
        /// Why it cannot be asked.
        why: String,
        /// The commit that is used.
        commit: String,
    },
}

/// Who watches a fetch.
pub trait FetchProgress {
    /// Something happened.
    fn event(&mut self, event: &FetchEvent);
}

/// Nobody does.
impl FetchProgress for () {
    fn event(&mut self, _: &FetchEvent) {}
}
