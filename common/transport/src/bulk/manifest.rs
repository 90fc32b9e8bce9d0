//! The manifest of one large object: a fixed binary layout, decoded without trusting any length
//! in it.
//!
//! ```text
//! manifest  "FLM1" | total u64 | chunk size u32 | chunk count u32 | digest [32]
//!           | chunk digests [32]*
//! chunk     index u32 | 1 to chunk-size bytes
//! ```
//! Integers are little-endian.

use fedlora_common::digest::{Digest, DigestWriter};

/// The smallest chunk size, in bytes.
pub const MIN_CHUNK: u32 = 256 << 10;

/// The largest chunk size, in bytes: what either side holds in memory.
pub const MAX_CHUNK: u32 = 1 << 20;

/// The largest number of chunks of one object: 16 GiB at the smallest chunk size, 64 GiB at the
/// largest.
pub const MAX_CHUNKS: u32 = 1 << 16;

/// The longest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = FIXED + 32 * MAX_CHUNKS as usize;

const MAGIC: &[u8; 4] = b"FLM1";
const FIXED: usize = 4 + 8 + 4 + 4 + 32;

/// What an object consists of. The whole digest is plain BLAKE3 of the bytes, as `b3sum` prints it;
/// a chunk's digest also covers its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    total: u64,
    chunk_size: u32,
    digest: Digest,
    chunks: Vec<Digest>,
}

impl Manifest {
    /// The manifest of an object in memory, in chunks of `chunk_size` bytes ([`MIN_CHUNK`] to
    /// [`MAX_CHUNK`]; the last is shorter).
    ///
    /// # Errors
    /// [`ManifestError`] for an empty object, one too large, or a chunk size out of bounds.
    pub fn of(bytes: &[u8], chunk_size: u32) -> Result<Self, ManifestError> {
        let mut builder = ManifestBuilder::new(bytes.len() as u64, chunk_size)?;
        for chunk in bytes.chunks(chunk_size as usize) {
            builder.push(chunk);
        }
        builder.finish()
    }

    /// Length of the object in bytes, at least 1.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of every chunk but the last.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Number of chunks, at least 1.
    pub fn chunk_count(&self) -> u32 {
        // Construction keeps it within MAX_CHUNKS.
        self.chunks.len() as u32
    }

    /// BLAKE3 of the whole object.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of chunk `index` in bytes; 0 beyond the last.
    pub fn chunk_length(&self, index: u32) -> usize {
        let start = u64::from(index) * u64::from(self.chunk_size);
        // At most MAX_CHUNK, so it fits.
        self.total
            .saturating_sub(start)
            .min(u64::from(self.chunk_size)) as usize
    }

    /// Bytes in the first `chunks` chunks.
    pub fn bytes_in(&self, chunks: u32) -> u64 {
        self.total
            .min(u64::from(chunks) * u64::from(self.chunk_size))
    }

    /// Whether `bytes` is chunk `index`.
    pub fn holds(&self, index: u32, bytes: &[u8]) -> bool {
        self.chunks
            .get(index as usize)
            .is_some_and(|expected| *expected == chunk_digest(index, bytes))
    }

    /// The manifest as bytes, in the layout above.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + 32 * self.chunks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.total.to_le_bytes());
        bytes.extend_from_slice(&self.chunk_size.to_le_bytes());
        bytes.extend_from_slice(&self.chunk_count().to_le_bytes());
        bytes.extend_from_slice(self.digest.as_bytes());
        for chunk in &self.chunks {
            bytes.extend_from_slice(chunk.as_bytes());
        }
        bytes
    }

    /// Reads a manifest: one that is returned is consistent in itself.
    ///
    /// # Errors
    /// [`ManifestError`] for anything that [`Manifest::encode`] does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let truncated = || ManifestError::Length {
            got: bytes.len(),
            expected: FIXED,
        };
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(truncated)?;
        if magic != MAGIC {
            return Err(ManifestError::Magic);
        }
        let (total, rest) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
        let (chunk_size, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let (digest, rest) = rest.split_first_chunk::<32>().ok_or_else(truncated)?;
        let total = u64::from_le_bytes(*total);
        let chunk_size = u32::from_le_bytes(*chunk_size);
        let count = u32::from_le_bytes(*count);
        let expected = chunk_count(total, chunk_size)?;
        if count != expected {
            return Err(ManifestError::Count {
                got: count,
                expected,
            });
        }
        // Bounded by MAX_CHUNKS, and equal to what has already arrived.
        let (chunks, odd) = rest.as_chunks::<32>();
        if chunks.len() != count as usize || !odd.is_empty() {
            return Err(ManifestError::Length {
                got: bytes.len(),
                expected: FIXED + 32 * count as usize,
            });
        }
        Ok(Self {
            total,
            chunk_size,
            digest: Digest::from_bytes(*digest),
            chunks: chunks.iter().copied().map(Digest::from_bytes).collect(),
        })
    }
}

/// Builds a [`Manifest`] from chunks in order, so that the object need not be in memory.
pub struct ManifestBuilder {
    total: u64,
    chunk_size: u32,
    expected: u32,
    seen: u64,
    whole: blake3::Hasher,
    chunks: Vec<Digest>,
}

impl ManifestBuilder {
    /// Begins the manifest of an object of `total` bytes.
    ///
    /// # Errors
    /// [`ManifestError`] for an empty object, one too large, or a chunk size out of bounds.
    pub fn new(total: u64, chunk_size: u32) -> Result<Self, ManifestError> {
        let expected = chunk_count(total, chunk_size)?;
        Ok(Self {
            total,
            chunk_size,
            expected,
            seen: 0,
            whole: blake3::Hasher::new(),
            chunks: Vec::with_capacity(expected as usize),
        })
    }

    /// Adds the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.chunks
            .push(chunk_digest(self.chunks.len() as u32, chunk));
        self.whole.update(chunk);
        self.seen += chunk.len() as u64;
    }

    /// Completes the manifest.
    ///
    /// # Errors
    /// [`ManifestError::Changed`] when what was added is not what was announced.
    pub fn finish(self) -> Result<Manifest, ManifestError> {
        if self.seen != self.total || self.chunks.len() != self.expected as usize {
            return Err(ManifestError::Changed {
                got: self.seen,
                expected: self.total,
            });
        }
        Ok(Manifest {
            total: self.total,
            chunk_size: self.chunk_size,
            digest: Digest::from_bytes(*self.whole.finalize().as_bytes()),
            chunks: self.chunks,
        })
    }
}

/// BLAKE3 of an object, as [`Manifest::digest`] holds it.
pub fn content_digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(*blake3::hash(bytes).as_bytes())
}

fn chunk_count(total: u64, chunk_size: u32) -> Result<u32, ManifestError> {
    if !(MIN_CHUNK..=MAX_CHUNK).contains(&chunk_size) {
        return Err(ManifestError::ChunkSize { got: chunk_size });
    }
    if total == 0 {
        return Err(ManifestError::Empty);
    }
    u32::try_from(total.div_ceil(u64::from(chunk_size)))
        .ok()
        .filter(|count| *count <= MAX_CHUNKS)
        .ok_or(ManifestError::TooLarge {
            got: total,
            limit: u64::from(chunk_size) * u64::from(MAX_CHUNKS),
        })
}

fn chunk_digest(index: u32, bytes: &[u8]) -> Digest {
    DigestWriter::new("fedlora v1 bulk chunk")
        .number(u64::from(index))
        .raw(bytes)
        .finish()
}

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not a manifest of this version.
    #[error("not a bulk manifest (it does not begin with FLM1)")]
    Magic,
    /// Cut, or with bytes after its end.
    #[error("a manifest of {got} bytes, where {expected} are expected")]
    Length {
        /// Bytes found.
        got: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// A chunk size out of bounds.
    #[error("a chunk size of {got} bytes; {MIN_CHUNK} to {MAX_CHUNK} can be used")]
    ChunkSize {
        /// Bytes found.
        got: u32,
    },
    /// An object without bytes.
    #[error("an object of 0 bytes cannot be transferred")]
    Empty,
    /// An object of more than [`MAX_CHUNKS`] chunks.
    #[error("an object of {got} bytes; at most {limit} with this chunk size")]
    TooLarge {
        /// Bytes found.
        got: u64,
        /// The largest length with this chunk size, in bytes.
        limit: u64,
    },
    /// Another number of chunks than the length gives.
    #[error("{got} chunks, where the length gives {expected}")]
    Count {
        /// Chunks found.
        got: u32,
        /// Chunks expected.
        expected: u32,
    },
    /// The object changed while it was read.
    #[error("the object changed while it was read: {got} bytes, where {expected} were announced")]
    Changed {
        /// Bytes found.
        got: u64,
        /// Bytes announced.
        expected: u64,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn a_manifest_states_its_object() {
        let bytes = object(600_000);
        let manifest = Manifest::of(&bytes, MIN_CHUNK).unwrap();
        assert_eq!(manifest.chunk_count(), 3);
        assert_eq!(manifest.chunk_length(2), 600_000 - 2 * 262_144);
        assert_eq!(manifest.chunk_length(3), 0);
        assert_eq!(manifest.bytes_in(3), 600_000);
        assert_eq!(manifest.digest(), content_digest(&bytes));
        assert!(manifest.holds(0, &bytes[..262_144]));
        // The right bytes in another place are not the chunk.
        assert!(!manifest.holds(1, &bytes[..262_144]));
        assert!(!manifest.holds(9, &[]));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let good = Manifest::of(&object(600_000), MIN_CHUNK).unwrap().encode();
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            Manifest::decode(&changed).unwrap_err()
        };
        assert_eq!(with(0, b"FLM2"), ManifestError::Magic);
        assert_eq!(with(4, &[0; 8]), ManifestError::Empty);
        assert!(matches!(
            with(4, &[0xff; 8]),
            ManifestError::TooLarge { .. }
        ));
        assert!(matches!(
            with(4, &262_144_u64.to_le_bytes()),
            ManifestError::Count {
                got: 3,
                expected: 1
            }
        ));
        assert!(matches!(
            with(12, &[0; 4]),
            ManifestError::ChunkSize { got: 0 }
        ));
        assert!(matches!(
            with(12, &[0xff; 4]),
            ManifestError::ChunkSize { .. }
        ));
        assert!(matches!(with(16, &[4]), ManifestError::Count { .. }));
        for cut in 0..good.len() {
            assert!(Manifest::decode(&good[..cut]).is_err());
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(matches!(
            Manifest::decode(&longer),
            Err(ManifestError::Length { .. })
        ));
        assert_eq!(Manifest::of(&[], MIN_CHUNK), Err(ManifestError::Empty));
        assert!(Manifest::of(&[1], MIN_CHUNK - 1).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, sized: bool) {
            let _ = Manifest::decode(&bytes);
            if sized && bytes.len() >= 20 {
                bytes[..4].copy_from_slice(MAGIC);
                bytes[12..16].copy_from_slice(&MIN_CHUNK.to_le_bytes());
                if let Ok(manifest) = Manifest::decode(&bytes) {
                    prop_assert_eq!(manifest.encode(), bytes);
                }
            }
        }

        #[test]
        fn manifests_round_trip(length in 1..2_000_000_usize, size in MIN_CHUNK..=MAX_CHUNK) {
            let manifest = Manifest::of(&object(length), size).unwrap();
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
