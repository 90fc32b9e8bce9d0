//! Where an object's bytes come from and go to: memory, or a file that survives a restart.

use std::fs::TryLockError;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom};

use super::error::BulkError;
use super::manifest::{Manifest, ManifestBuilder};
use fedlora_common::files::{Access, beside, sync_parent, write_atomic};

/// The bytes of an object that is to be sent.
pub trait ByteSource: Send {
    /// Fills `buffer` with the object's bytes from `offset` on.
    fn read_at(
        &mut self,
        offset: u64,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// Where verified chunks go, in order. What it holds outlives a broken transfer, so that the next
/// one resumes from there.
pub trait ChunkSink: Send {
    /// Prepares for this object and says how many of its first chunks seem to be held already.
    /// Drops what is held of another object.
    fn begin(&mut self, manifest: &Manifest) -> impl Future<Output = io::Result<u32>> + Send;

    /// Reads a held chunk back into `buffer`, which has the chunk's length.
    fn read_back(
        &mut self,
        index: u32,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Drops all but the first `chunks` chunks; returns how many are kept, which is `chunks`
    /// or 0.
    fn keep(&mut self, chunks: u32) -> impl Future<Output = io::Result<u32>> + Send;

    /// Adds chunk `index`, the one after the last that is held. May fail and be tried again in
    /// another transfer.
    fn append(&mut self, index: u32, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Makes the whole object durable and visible. Called once all of it is verified.
    fn commit(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Drops everything: the object is not what its manifest says.
    fn discard(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// An object in memory.
#[derive(Debug)]
pub struct MemorySource<T>(pub T);

impl<T: AsRef<[u8]> + Send> ByteSource for MemorySource<T> {
    async fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(buffer.len())?));
        let bytes = range
            .and_then(|range| self.0.as_ref().get(range))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// An object in a file.
#[derive(Debug)]
pub struct FileSource(File);

impl FileSource {
    /// Opens a file and computes its manifest, one chunk in memory at a time.
    ///
    /// # Errors
    /// [`BulkError::Source`] when it cannot be read, [`BulkError::Manifest`] when it cannot be
    /// described (an empty file, for one).
    pub async fn open(path: &Path, chunk_size: u32) -> Result<(Self, Manifest), BulkError> {
        let mut file = File::open(path).await.map_err(BulkError::Source)?;
        let total = file.metadata().await.map_err(BulkError::Source)?.len();
        let mut builder = ManifestBuilder::new(total, chunk_size)?;
        let mut chunk = vec![0; chunk_size as usize];
        let mut left = total;
        while left > 0 {
            let length = left.min(u64::from(chunk_size));
            let part = &mut chunk[..length as usize];
            file.read_exact(part).await.map_err(BulkError::Source)?;
            builder.push(part);
            left -= length;
        }
        Ok((Self(file), builder.finish()?))
    }
}

impl ByteSource for FileSource {
    async fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(offset)).await?;
        self.0.read_exact(buffer).await.map(drop)
    }
}

/// Collects an object in memory. Grows with what arrives, not with what is announced.
#[derive(Debug, Default)]
pub struct MemorySink {
    manifest: Option<Manifest>,
    bytes: Vec<u8>,
    committed: bool,
}

impl MemorySink {
    /// The object, if it was committed.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        self.committed.then_some(self.bytes)
    }

    /// The number of bytes held so far.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    fn manifest(&self) -> io::Result<&Manifest> {
        self.manifest.as_ref().ok_or_else(not_begun)
    }
}

impl ChunkSink for MemorySink {
    async fn begin(&mut self, manifest: &Manifest) -> io::Result<u32> {
        if self.manifest.as_ref() != Some(manifest) {
            *self = Self {
                manifest: Some(manifest.clone()),
                ..Self::default()
            };
        }
        Ok(held_chunks(manifest, self.bytes.len() as u64))
    }

    async fn read_back(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<()> {
        let start = self.manifest()?.bytes_in(index);
        MemorySource(&self.bytes).read_at(start, buffer).await
    }

    async fn keep(&mut self, chunks: u32) -> io::Result<u32> {
        let length = self.manifest()?.bytes_in(chunks);
        self.bytes.truncate(length as usize);
        self.committed = false;
        Ok(chunks)
    }

    async fn append(&mut self, index: u32, bytes: &[u8]) -> io::Result<()> {
        self.keep(index).await?;
        self.bytes
            .try_reserve(bytes.len())
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn commit(&mut self) -> io::Result<()> {
        self.committed = true;
        Ok(())
    }

    async fn discard(&mut self) -> io::Result<()> {
        *self = Self::default();
        Ok(())
    }
}

/// Collects an object in `PATH.part`, with its manifest in `PATH.manifest`, and renames it to
/// `PATH` when it is whole and synced. A new sink on the same path, after a restart too, resumes
/// where the last one stopped, and finds an object that is already there. Two at a time on one path
/// are refused.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    part: PathBuf,
    sidecar: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    manifest: Manifest,
    file: File,
    /// The file is `PATH` itself: an earlier transfer ended, and its acknowledgement was lost.
    finished: bool,
}

impl FileSink {
    /// A sink that will become the file `path`, in a directory that exists.
    ///
    /// # Errors
    /// When `path` names no file.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            part: beside(path, ".part")?,
            sidecar: beside(path, ".manifest")?,
            open: None,
        })
    }

    /// The files that a transfer to `path` may leave.
    pub fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
        let others = [".part", ".manifest"].map(|suffix| beside(path, suffix).ok());
        std::iter::once(path.to_owned()).chain(others.into_iter().flatten())
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        self.open.as_mut().ok_or_else(not_begun)
    }

    /// Takes the part file for this object, empty unless it already belongs to it, and returns its
    /// length. One transfer at a time: the file stays locked while it is open.
    async fn take_part(&mut self, manifest: &Manifest) -> io::Result<u64> {
        self.open = None;
        let (part, sidecar, encoded) = (self.part.clone(), self.sidecar.clone(), manifest.encode());
        let (file, length) = blocking(move || {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(&part)?;
            file.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("another transfer is writing {}", part.display()),
                ),
                TryLockError::Error(error) => error,
            })?;
            let known = match std::fs::read(&sidecar) {
                Ok(bytes) => bytes == encoded,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if !known {
                // The old bytes go first: they must never stand beside the new manifest.
                file.set_len(0)?;
                write_atomic(&sidecar, &encoded, Access::Owner)?;
            }
            let length = file.metadata()?.len();
            Ok((file, length))
        })
        .await?;
        self.open = Some(Open {
            manifest: manifest.clone(),
            file: File::from_std(file),
            finished: false,
        });
        Ok(length)
    }

    async fn keep_part(&mut self, chunks: u32) -> io::Result<()> {
        let open = self.open()?;
        open.file.set_len(open.manifest.bytes_in(chunks)).await
    }
}

impl ChunkSink for FileSink {
    async fn begin(&mut self, manifest: &Manifest) -> io::Result<u32> {
        self.open = None;
        if length_of(&self.path).await? == Some(manifest.total()) {
            self.open = Some(Open {
                manifest: manifest.clone(),
                file: File::open(&self.path).await?,
                finished: true,
            });
            return Ok(manifest.chunk_count());
        }
        let length = self.take_part(manifest).await?;
        Ok(held_chunks(manifest, length))
    }

    async fn read_back(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<()> {
        let open = self.open()?;
        let start = open.manifest.bytes_in(index);
        open.file.seek(SeekFrom::Start(start)).await?;
        open.file.read_exact(buffer).await.map(drop)
    }

    async fn keep(&mut self, chunks: u32) -> io::Result<u32> {
        let open = self.open()?;
        if open.finished {
            if chunks == open.manifest.chunk_count() {
                return Ok(chunks);
            }
            // Another object of the same length: it stays until this one is whole.
            let manifest = open.manifest.clone();
            self.take_part(&manifest).await?;
            self.keep_part(0).await?;
            return Ok(0);
        }
        self.keep_part(chunks).await?;
        Ok(chunks)
    }

    async fn append(&mut self, index: u32, bytes: &[u8]) -> io::Result<()> {
        let open = self.open()?;
        let start = open.manifest.bytes_in(index);
        open.file.seek(SeekFrom::Start(start)).await?;
        open.file.write_all(bytes).await?;
        // Until here tokio may still hold the bytes, and an error with them.
        open.file.flush().await
    }

    async fn commit(&mut self) -> io::Result<()> {
        let open = self.open()?;
        open.file.sync_all().await?;
        if !open.finished {
            fs::rename(&self.part, &self.path).await?;
        }
        let path = self.path.clone();
        blocking(move || sync_parent(&path)).await?;
        remove(&self.sidecar).await
    }

    async fn discard(&mut self) -> io::Result<()> {
        self.open = None;
        remove(&self.part).await?;
        remove(&self.sidecar).await
    }
}

fn not_begun() -> io::Error {
    io::Error::other("the sink was used before it was prepared for an object")
}

/// Whole chunks within the first `length` bytes.
fn held_chunks(manifest: &Manifest, length: u64) -> u32 {
    if length >= manifest.total() {
        return manifest.chunk_count();
    }
    // Less than the total, so less than the number of chunks.
    (length / u64::from(manifest.chunk_size())) as u32
}

async fn length_of(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path).await {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
