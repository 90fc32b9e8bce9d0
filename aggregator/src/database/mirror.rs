//! Each change of the directory, made in the database first. A log's bytes wait in memory until they
//! have to be durable. Where the database is away for a moment the change waits; where it stays away
//! longer the change fails, and the folder does not get it either.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fedlora_common::files::Access;
use fedlora_protocol::crypto::os_rng;
use rand::Rng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;

use super::files::Base;
use super::folder::kept;
use super::hydrate::read_whole;
use super::lease::Claim;
use super::objects::{Objects, digest_of};
use super::sql::Sql;
use super::{INLINE, PATIENCE, StoreError};
use crate::store::Change;

/// The first pause before a change is tried again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The holder's side of a store: what the threads share that change it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) sql: Sql,
    pub(super) objects: Objects,
    pub(super) claim: Claim,
    pub(super) root: PathBuf,
    /// What logs have grown by since they were last durable.
    tails: Mutex<BTreeMap<String, Tail>>,
    /// The host that has taken the lease over, once one has.
    pub(super) lost: watch::Sender<Option<String>>,
    /// There is something to delete.
    pub(super) loosened: Notify,
    /// Whoever writes the note has it: two at a time would take each other's temporary file away.
    pub(super) noting: tokio::sync::Mutex<()>,
}

/// What a log has grown by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tail {
    start: u64,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new((sql, objects): (Sql, Objects), claim: Claim, root: &Path) -> Self {
        Self {
            sql,
            objects,
            claim,
            root: root.to_owned(),
            tails: Mutex::default(),
            lost: watch::Sender::new(None),
            loosened: Notify::new(),
            noting: tokio::sync::Mutex::default(),
        }
    }

    /// The change with what it needs, so that another thread can make it; nothing where it waits for
    /// more.
    pub(super) fn prepare(
        &self,
        path: &Path,
        change: Change<'_>,
    ) -> io::Result<Option<PreparedChange>> {
        let name = |path: &Path| {
            kept(path).ok_or_else(|| {
                let path = path.display();
                let text = format!("{path} is not among the files that a database keeps");
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })
        };
        let named = match change {
            // An upload that was under way, for instance: it is this host's alone.
            Change::Remove if kept(path).is_none() => return Ok(None),
            // A folder of a run's, or a whole run.
            Change::RemoveFolder => name(&path.join("any")).map(|it| it[..it.len() - 4].to_owned()),
            _ => name(path),
        }?;
        let mut tails = self.tails.lock().expect("no thread panics with it");
        let what = match change {
            Change::Write { bytes, access } => {
                tails.remove(&named);
                What::Write {
                    bytes: bytes.to_vec(),
                    private: access == Access::Owner,
                }
            }
            Change::Adopt { at } => {
                tails.remove(&named);
                What::Adopt { at: at.to_owned() }
            }
            Change::Append { at: 0, bytes: [] } => {
                tails.remove(&named);
                What::Grow {
                    start: 0,
                    bytes: Vec::new(),
                }
            }
            Change::Append { at, bytes } => {
                let tail = tails.entry(named).or_insert_with(|| Tail {
                    start: at,
                    bytes: Vec::new(),
                });
                tail.cut_to(at)?;
                tail.bytes.extend(bytes);
                return Ok(None);
            }
            Change::Sync => match tails.get(&named) {
                None => return Ok(None),
                Some(tail) => What::Grow {
                    start: tail.start,
                    bytes: tail.bytes.clone(),
                },
            },
            Change::Truncate { length } => {
                if let Some(tail) = tails.get_mut(&named) {
                    match length <= tail.start {
                        true => drop(tails.remove(&named)),
                        false => tail.cut_to(length)?,
                    }
                }
                let tail = tails.get(&named).cloned();
                What::Truncate { length, tail }
            }
            Change::Rename { to } => {
                if let Some(tail) = tails.remove(&named) {
                    tails.insert(name(to)?, tail);
                }
                What::Rename { to: name(to)? }
            }
            Change::Remove => {
                tails.remove(&named);
                What::Remove
            }
            Change::RemoveFolder => {
                let folder = format!("{named}/");
                tails.retain(|path, _| !path.starts_with(&folder));
                What::RemoveFolder
            }
        };
        Ok(Some(PreparedChange { path: named, what }))
    }

    /// Makes a change.
    pub(super) async fn make(&self, change: PreparedChange) -> Result<(), StoreError> {
        let PreparedChange { path, what } = &change;
        let done = match what {
            What::Write { bytes, private } => self.write(path, bytes, *private).await,
            What::Adopt { at } => self.adopt(path, at).await,
            What::Grow { start, bytes } => self.grow(path, *start, bytes).await,
            What::Truncate { length, tail } => {
                if let Some(tail) = tail {
                    self.grow(path, tail.start, &tail.bytes).await?;
                }
                self.truncate(path, *length).await
            }
            What::Rename { to } => self.insist(|| self.sql.rename(&self.claim, path, to)).await,
            What::Remove => {
                self.insist(|| self.sql.remove(&self.claim, path, false))
                    .await
            }
            What::RemoveFolder => {
                self.insist(|| self.sql.remove(&self.claim, path, true))
                    .await
            }
        };
        if matches!(done, Ok(())) && !matches!(what, What::Grow { .. }) {
            self.loosened.notify_one();
        }
        done
    }

    async fn write(&self, path: &str, bytes: &[u8], private: bool) -> Result<(), StoreError> {
        if bytes.len() <= INLINE {
            let base = inline(bytes.to_vec(), private);
            return self.insist(|| self.sql.put(&self.claim, path, &base)).await;
        }
        let at = self.root.join(path).with_extension("object.part");
        let folder = at.parent().unwrap_or(&self.root);
        let stored = tempfile::Builder::new()
            .suffix(".part")
            .tempfile_in(folder)
            .and_then(|mut file| {
                io::Write::write_all(&mut file, bytes)?;
                Ok(file)
            });
        let stored = stored.map_err(|error| StoreError::io(&at, &error))?;
        self.store_object(path, stored.path(), private).await
    }

    async fn adopt(&self, path: &str, at: &Path) -> Result<(), StoreError> {
        let unreadable = |error: io::Error| StoreError::io(at, &error);
        let metadata = tokio::fs::metadata(at).await.map_err(unreadable)?;
        #[cfg(unix)]
        let private = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 == 0;
        #[cfg(not(unix))]
        let private = false;
        if metadata.len() > INLINE as u64 {
            return self.store_object(path, at, private).await;
        }
        let bytes = tokio::fs::read(at).await.map_err(unreadable)?;
        let base = inline(bytes, private);
        self.insist(|| self.sql.put(&self.claim, path, &base)).await
    }

    /// Stores a large file: noted, stored under a name of its own, and then named by its row.
    async fn store_object(&self, path: &str, at: &Path, private: bool) -> Result<(), StoreError> {
        let mut random = [0; 16];
        os_rng().fill_bytes(&mut random);
        // Another name for each, so that nobody writes over what another has stored.
        let object = format!(
            "{:08}-{:032x}",
            self.claim.fence,
            u128::from_be_bytes(random)
        );
        self.insist(|| self.sql.announce(&self.claim, &object))
            .await?;
        let done = async {
            let stored = self.objects.put(&object, at).await?;
            let base = Base {
                length: stored.length as i64,
                digest: stored.digest.to_string(),
                content: Vec::new(),
                object: object.clone(),
                private,
            };
            self.insist(|| self.sql.put(&self.claim, path, &base)).await
        };
        let done = done.await;
        if matches!(
            done,
            Err(StoreError::Io { .. } | StoreError::Refused { .. })
        ) {
            // Where it is away, what comes next cannot know whether the row names it.
            if let Err(error) = self.sql.abandon(&self.claim, &object).await {
                warn!(%error, "an object that no file names stays until the next start");
            }
        }
        done
    }

    /// Makes what a log has grown by durable.
    async fn grow(&self, path: &str, start: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.insist(|| {
            let grown = (start as i64, bytes);
            self.sql.grow(&self.claim, path, grown)
        })
        .await?;
        let mut tails = self.tails.lock().expect("no thread panics with it");
        if let Some(tail) = tails.get_mut(path)
            && tail.start == start
            && tail.bytes.len() >= bytes.len()
        {
            tail.bytes.drain(..bytes.len());
            tail.start += bytes.len() as u64;
            if tail.bytes.is_empty() {
                tails.remove(path);
            }
        }
        Ok(())
    }

    async fn truncate(&self, path: &str, length: u64) -> Result<(), StoreError> {
        let file = self.insist(|| self.sql.file(path)).await?;
        let file = file.ok_or_else(|| self.sql.refused(format!("{path} is not kept")))?;
        match file.length.cmp(&(length as i64)) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(self.sql.refused(format!(
                "{path} has {} bytes there, and {length} here",
                file.length
            ))),
            std::cmp::Ordering::Greater => {
                let beside = self.root.join(path);
                let stores = (&self.sql, &self.objects);
                let mut bytes = read_whole(stores, &file, &beside).await?;
                bytes.truncate(length as usize);
                self.write(path, &bytes, file.private).await
            }
        }
    }

    /// Tries something until it is done or refused, for as long as the database may be away.
    pub(super) async fn insist<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        if let Some(host) = self.lost.borrow().clone() {
            return Err(StoreError::Lost { host });
        }
        let deadline = Instant::now() + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let error = match tokio::time::timeout_at(deadline, attempt()).await {
                Ok(Err(error @ StoreError::Away { .. })) => error,
                Ok(Err(StoreError::Lost { host })) => {
                    self.lost.send_replace(Some(host.clone()));
                    return Err(StoreError::Lost { host });
                }
                Ok(other) => return other,
                Err(_) => StoreError::Away {
                    shown: self.sql.shown.clone(),
                    reason: format!("no answer within {} s", PATIENCE.as_secs()),
                },
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            if pause == PAUSE {
                warn!(%error, "the store does not answer; trying again");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

impl Tail {
    /// Cuts what stands behind the log's first `length` bytes.
    fn cut_to(&mut self, length: u64) -> io::Result<()> {
        let left = length.checked_sub(self.start);
        match left.filter(|left| *left <= self.bytes.len() as u64) {
            Some(left) => {
                self.bytes.truncate(left as usize);
                Ok(())
            }
            None => Err(io::Error::other(
                "a log goes on at another place than where it ended",
            )),
        }
    }
}

fn inline(content: Vec<u8>, private: bool) -> Base {
    Base {
        length: content.len() as i64,
        digest: digest_of(&content).to_string(),
        content,
        object: String::new(),
        private,
    }
}

/// A change with what it needs.
#[derive(Debug, Clone)]
pub(super) struct PreparedChange {
    path: String,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Write { bytes: Vec<u8>, private: bool },
    Adopt { at: PathBuf },
    Grow { start: u64, bytes: Vec<u8> },
    Truncate { length: u64, tail: Option<Tail> },
    Rename { to: String },
    Remove,
    RemoveFolder,
}

/// What a store is told, as its `Arc` goes to the threads that do it.
pub(super) type SharedWriter = Arc<Writer>;
