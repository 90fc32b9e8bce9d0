//! The progress of a fetch, for whoever displays it.

use std::time::Duration;

/// One step of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// Weights are about to be fetched. What is here already is not in it.
    Planned {
        /// What was asked for.
        name: String,
        /// Number of files to fetch.
        files: usize,
        /// Size of these files, in bytes, with what an earlier try left.
        bytes: u64,
    },
    /// A file begins.
    File {
        /// Its name in the repository.
        file: String,
        /// Bytes of it that an earlier try left.
        start: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Part of the current file arrived.
    Received {
        /// Size of the part, in bytes.
        bytes: u64,
    },
    /// A file is here and is the one announced.
    Fetched {
        /// Its name in the repository.
        file: String,
        /// Its size in bytes.
        size: u64,
    },
    /// Something failed and is tried again.
    Retrying {
        /// The failure, in words.
        why: String,
        /// Time until the next try.
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

/// Receives the progress of a fetch.
pub trait FetchProgress {
    /// Called once for each step, on the thread that called `fetch`.
    fn event(&mut self, event: &FetchEvent);
}

/// Ignores all progress.
impl FetchProgress for () {
    fn event(&mut self, _: &FetchEvent) {}
}
