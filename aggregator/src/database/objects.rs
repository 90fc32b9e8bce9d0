//! Large files: an object store, in a bucket or in a folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedlora_common::digest::{Digest, DigestWriter};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use super::address::{StoreAddress, without_passwords};
use super::{PATIENCE, StoreError};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// What digests of kept files are made with.
const DIGEST_CONTEXT: &str = "fedlora 2026-11 kept file";

/// Where large files lie.
#[derive(Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    shown: String,
    /// Whether the environment has a key of the bucket's owner: without one, the machine is asked.
    has_key: bool,
}

/// Without credentials.
impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Objects({})", self.shown)
    }
}

/// What was read from a file while it was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) length: u64,
    pub(super) digest: Digest,
}

impl Objects {
    /// Opens the place for the federation of an authority; a folder is made where it is missing.
    pub(super) fn open(address: &StoreAddress, authority: &str) -> Result<Self, StoreError> {
        let shown = address.to_string();
        let refused = |reason: String| StoreError::Address {
            shown: shown.clone(),
            reason,
        };
        let url = Url::parse(address.expose()).map_err(|error| refused(error.to_string()))?;
        let clean = |error: object_store::Error| refused(without_passwords(&error.to_string()));
        let (store, prefix): (Arc<dyn ObjectStore>, _) = match url.scheme() {
            "file" => {
                let folder = PathBuf::from(url.path());
                fedlora_common::files::create_private_folder(&folder)
                    .map_err(|error| StoreError::io(&folder, &error))?;
                let store = LocalFileSystem::new_with_prefix(&folder).map_err(clean)?;
                (Arc::new(store.with_fsync(true)), Key::default())
            }
            "s3" => {
                let bucket = url.host_str().unwrap_or_default();
                if bucket.is_empty() || url.password().is_some() || !url.username().is_empty() {
                    let reason = "expected s3://BUCKET/PREFIX, and credentials in AWS_* variables";
                    return Err(refused(reason.to_owned()));
                }
                let retry = RetryConfig {
                    retry_timeout: PATIENCE,
                    ..RetryConfig::default()
                };
                let store = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .build()
                    .map_err(clean)?;
                let prefix = Key::parse(url.path().trim_matches('/'));
                let prefix = prefix.map_err(|error| refused(error.to_string()))?;
                (Arc::new(store), prefix)
            }
            other => {
                return Err(refused(format!(
                    "'{other}' is neither s3://BUCKET/PREFIX nor file:///PATH"
                )));
            }
        };
        // Federations may share a place: none sees the other's objects as its own.
        let of_one: String = authority.chars().take(16).collect();
        Ok(Self {
            store,
            prefix: prefix.join(of_one),
            shown,
            has_key: url.scheme() != "s3" || std::env::var_os("AWS_ACCESS_KEY_ID").is_some(),
        })
    }

    fn key(&self, object: &str) -> Key {
        self.prefix.clone().join("objects").join(object)
    }

    fn away(&self, error: &object_store::Error) -> StoreError {
        self.away_because(&error.to_string())
    }

    fn away_io(&self, error: &std::io::Error) -> StoreError {
        self.away_because(&error.to_string())
    }

    fn away_because(&self, reason: &str) -> StoreError {
        let reason = without_passwords(reason);
        StoreError::Away {
            shown: self.shown.clone(),
            reason: match self.has_key {
                true => reason,
                false => format!(
                    "AWS_ACCESS_KEY_ID is not set, and asking this machine for credentials gave: {reason}"
                ),
            },
        }
    }

    /// Stores a file under a name that nothing had before.
    pub(super) async fn put(&self, object: &str, from: &Path) -> Result<Stored, StoreError> {
        let unreadable = |error: &std::io::Error| StoreError::io(from, error);
        let mut file = tokio::fs::File::open(from)
            .await
            .map_err(|error| unreadable(&error))?;
        let mut writer = BufWriter::new(Arc::clone(&self.store), self.key(object));
        let mut digest = DigestWriter::new(DIGEST_CONTEXT);
        let (mut chunk, mut length) = (vec![0; CHUNK], 0);
        loop {
            let read = file.read(&mut chunk).await;
            let read = read.map_err(|error| unreadable(&error))?;
            if read == 0 {
                break;
            }
            digest.raw(&chunk[..read]);
            length += read as u64;
            if let Err(error) = writer.write_all(&chunk[..read]).await {
                // What was sent of it is given up, where the place can still be told.
                let _ = writer.abort().await;
                return Err(self.away_io(&error));
            }
        }
        let closed = writer.shutdown().await;
        closed.map_err(|error| self.away_io(&error))?;
        Ok(Stored {
            length,
            digest: digest.finish(),
        })
    }

    /// Copies an object into a file; gives what was read, or nothing where there is no such object.
    pub(super) async fn get(&self, object: &str, to: &Path) -> Result<Option<Stored>, StoreError> {
        let unwritable = |error: &std::io::Error| StoreError::io(to, error);
        let found = match self.store.get(&self.key(object)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|error| self.away(&error))?,
        };
        let mut stream = found.into_stream();
        let mut file = tokio::fs::File::create(to)
            .await
            .map_err(|error| unwritable(&error))?;
        let mut digest = DigestWriter::new(DIGEST_CONTEXT);
        let mut length = 0;
        while let Some(chunk) = stream.try_next().await.map_err(|error| self.away(&error))? {
            digest.raw(&chunk);
            length += chunk.len() as u64;
            let written = file.write_all(&chunk).await;
            written.map_err(|error| unwritable(&error))?;
        }
        file.flush().await.map_err(|error| unwritable(&error))?;
        Ok(Some(Stored {
            length,
            digest: digest.finish(),
        }))
    }

    /// Deletes an object, if it is there.
    pub(super) async fn delete(&self, object: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.key(object)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.away(&error)),
        }
    }

    /// The names of all objects.
    pub(super) async fn list(&self) -> Result<Vec<String>, StoreError> {
        let prefix = self.prefix.clone().join("objects");
        let found = self.store.list(Some(&prefix));
        let names = found.map_ok(|one| one.location.filename().map(str::to_owned));
        let names: Vec<_> = names
            .try_collect()
            .await
            .map_err(|error| self.away(&error))?;
        Ok(names.into_iter().flatten().collect())
    }
}

/// The digest of a file's content.
pub(super) fn digest_of(content: &[u8]) -> Digest {
    Digest::of(DIGEST_CONTEXT, content)
}

/// The same of a file on the disk, with its length.
pub(super) fn digest_of_file(path: &Path) -> std::io::Result<Stored> {
    let (length, digest) = Digest::of_all(DIGEST_CONTEXT, std::fs::File::open(path)?)?;
    Ok(Stored { length, digest })
}
