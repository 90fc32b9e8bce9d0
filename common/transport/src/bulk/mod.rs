//! Large objects (masked updates, adapters) in hashed, resumable chunks.
//!
//! Step 6 of a round: a masked update travels so from member to aggregator, and an adapter the other
//! way. An object is acknowledged when it is verified and durable, not before.

mod manifest;
mod storage;
mod transfer;

#[cfg(test)]
mod tests;

pub use manifest::{
    MAX_CHUNK, MAX_CHUNKS, MAX_MANIFEST_BYTES, MAX_REPLY_BYTES, MIN_CHUNK, Manifest,
    ManifestBuilder, ManifestError, Refusal, Reply, content_digest,
};
pub use storage::{ByteSource, ChunkSink, FileSink, FileSource, MemorySink, MemorySource};
pub use transfer::{BulkError, Expected, ExpectedLength, Progress, Transferred, receive, send};

/// The chunk size to use unless there is a reason for another: 512 KiB.
pub const DEFAULT_CHUNK: u32 = 512 << 10;
