//! Large objects (masked updates, adapters) in hashed, resumable chunks.
//!
//! Step 6 of a round: a masked update travels so from member to aggregator, and an adapter the
//! other way. An object is acknowledged when it is verified and durable, not before.

mod error;
mod manifest;
mod reply;
mod storage;
mod transfer;

#[cfg(test)]
mod tests;

pub use error::BulkError;
pub use manifest::{
    MAX_CHUNK, MAX_CHUNKS, MAX_MANIFEST_BYTES, MIN_CHUNK, Manifest, ManifestBuilder, ManifestError,
    content_digest,
};
pub use reply::{MAX_REPLY_BYTES, Refusal, Reply, ReplyError};
pub use storage::{ByteSource, ChunkSink, FileSink, FileSource, MemorySink, MemorySource};
pub use transfer::{Expected, ExpectedLength, Progress, Transferred, receive, send};

/// The chunk size to use unless there is a reason for another: 256 KiB.
pub const DEFAULT_CHUNK: u32 = 256 << 10;
