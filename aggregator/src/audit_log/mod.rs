//! A signed log of every lasting change that an operator's directory has seen: `log/log.jsonl`, one JSON
//! document a line. Invitations, members, plans, rosters, results, adapters, evidence, ends of runs, and
//! when the aggregator was started.
//!
//! Each line holds the digest of the one before and the aggregator's signature, and names the file that
//! changes with the digest of what it becomes. It is written before the change: what the directory holds
//! has to be what the log leads to, so that an edit of either, a cut and a reorder are found.
//!
//! | module | owns |
//! |---|---|
//! | `covered` | which files the log speaks of |
//! | `entry` | a line: its form, digest and signature |
//! | `tail` | the end of the log, where the next line is added |
//! | `expected` | what the directory holds, by the log |
//! | `verify` | the whole log against the directory |
//! | `words` | a line for people |

mod covered;
mod entry;
mod expected;
mod tail;
mod verify;
mod words;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{create_private_folder, lock};
use fedlora_protocol::crypto::sign::IdentityKey;

use crate::clock::Clock;
use crate::store::{Change, Recorder, Store};

use covered::{covers, walk};
use expected::{Expected, Found};
use tail::Tail;

pub use entry::{Entry, Event, LoggedAdapter, PrunedBy};
pub use verify::{Finding, LogError, Verified, entries, signed, verify, verify_and_show};
pub use words::words;

/// The folder of the log, in the operator's directory.
const FOLDER: &str = "log";
/// What the digest of a file's content, or of a part of it, is of.
const CONTENT: &str = "fedlora 1 audit log content";

/// Writes the log of one operator's directory.
#[derive(Debug)]
pub struct AuditLog {
    identity: IdentityKey,
    clock: Arc<dyn Clock>,
    own: Own,
}

impl AuditLog {
    /// A log whose lines `identity` signs, with times by `clock`.
    pub fn new(identity: IdentityKey, clock: Arc<dyn Clock>) -> Self {
        Self {
            identity,
            clock,
            own: Own::default(),
        }
    }

    /// Adds a line of its own about something that changes no file.
    ///
    /// # Errors
    /// Any I/O error.
    pub fn note(&self, store: &Store, event: Event) -> io::Result<()> {
        self.writer().note(store, event)
    }

    /// Takes what differs from the log as it is, for a `reason` that stands in it: a backup that was made
    /// while the aggregator ran, say. Gives how many files differ.
    ///
    /// # Errors
    /// [`LogError`] where the log cannot be read, or is itself not whole.
    pub fn accept(&self, store: &Store, reason: &str) -> Result<usize, LogError> {
        self.writer().accept(store, reason)
    }

    fn writer(&self) -> Writer<'_> {
        Writer {
            identity: &self.identity,
            now: self.clock.now(),
            own: &self.own,
        }
    }
}

/// Adds a line about something that changes no file, signed with `key`.
///
/// # Errors
/// [`LogError::Io`].
pub fn append(
    store: &Store,
    key: &IdentityKey,
    now: Timestamp,
    event: Event,
) -> Result<(), LogError> {
    let writer = Writer {
        identity: key,
        now,
        own: &Mutex::default(),
    };
    writer.note(store, event).map_err(|source| LogError::Io {
        path: path_in(store.root()),
        source,
    })
}

/// The newest line of this process's, and whether its change is made.
type Own = Mutex<Option<(u64, bool)>>;

/// What adds lines.
struct Writer<'a> {
    identity: &'a IdentityKey,
    now: Timestamp,
    own: &'a Own,
}

impl Writer<'_> {
    fn note(&self, store: &Store, event: Event) -> io::Result<()> {
        let (_lock, mut tail) = self.open(store)?;
        self.add(store, &mut tail, event)
    }

    fn accept(&self, store: &Store, reason: &str) -> Result<usize, LogError> {
        let root = store.root();
        let io = |source| LogError::Io {
            path: path_in(root),
            source,
        };
        let (_lock, mut tail) = self.open(store).map_err(io)?;
        let differing = verify::differing(root)?;
        if differing.is_empty() {
            return Ok(0);
        }
        let reason = reason.to_owned();
        self.add(store, &mut tail, Event::Accepted { reason })
            .map_err(io)?;
        for path in &differing {
            let path = path.clone();
            let event = match digest_of_file(&root.join(&path)) {
                Ok((length, digest)) => Event::Found {
                    path,
                    length,
                    digest,
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => Event::Removed { path },
                Err(error) => return Err(io(error)),
            };
            self.add(store, &mut tail, event).map_err(io)?;
        }
        Ok(differing.len())
    }

    /// Locks the log, and makes sure that its end is whole and what the directory holds.
    fn open(&self, store: &Store) -> io::Result<(File, Tail)> {
        let folder = store.root().join(FOLDER);
        create_private_folder(&folder)?;
        let locked = lock(&folder.join("lock"))?;
        let path = path_in(store.root());
        let mut tail = Tail::read(&path)?;
        if let Some(length) = tail.torn {
            store.truncate(&path, length)?;
            tail.torn = None;
        }
        match tail.last.clone() {
            None => self.begin(store, &mut tail)?,
            Some(last) => self.settle(store, &mut tail, &last)?,
        }
        Ok((locked, tail))
    }

    /// The first lines: whose log it is, and what there is already.
    fn begin(&self, store: &Store, tail: &mut Tail) -> io::Result<()> {
        let identity = self.identity.public();
        self.add(store, tail, Event::Begun { identity })?;
        for path in walk(store.root())? {
            let (length, digest) = digest_of_file(&store.root().join(&path))?;
            let event = Event::Found {
                path,
                length,
                digest,
            };
            self.add(store, tail, event)?;
        }
        Ok(())
    }

    /// A crash may have come between the newest line and its change: then the log says that too.
    fn settle(&self, store: &Store, tail: &mut Tail, last: &Entry) -> io::Result<()> {
        let Some(path) = last.event.path() else {
            return Ok(());
        };
        if *own_of(self.own) == Some((last.number, true)) {
            return Ok(());
        }
        let found = Found::read(&store.root().join(path))?;
        if Expected::is_made(&last.event, &found) {
            return Ok(());
        }
        let number = last.number;
        self.add(store, tail, Event::NotMade { number })
    }

    fn add(&self, store: &Store, tail: &mut Tail, event: Event) -> io::Result<()> {
        let entry = Entry {
            number: tail.last.as_ref().map_or(1, |last| last.number + 1),
            time: self.now,
            previous: tail.head,
            event,
        };
        let line = entry.line(self.identity)?;
        store.append(&path_in(store.root()), line.as_bytes())?;
        tail.head = entry::digest(line.trim_end_matches('\n').as_bytes());
        *own_of(self.own) = Some((entry.number, false));
        tail.last = Some(entry);
        Ok(())
    }
}

fn own_of(own: &Own) -> MutexGuard<'_, Option<(u64, bool)>> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder for AuditLog {
    fn enter(&self, store: &Store, path: &Path, change: Change<'_>) -> io::Result<Option<File>> {
        let Some(name) = covers(path) else {
            return Ok(None);
        };
        let Some(event) = event_of(store, name, path, change)? else {
            return Ok(None);
        };
        let writer = self.writer();
        let (locked, mut tail) = writer.open(store)?;
        writer.add(store, &mut tail, event)?;
        Ok(Some(locked))
    }

    fn made(&self) {
        if let Some((_, made)) = &mut *own_of(&self.own) {
            *made = true;
        }
    }
}

/// The file of the log in an operator's directory.
pub fn path_in(root: &Path) -> PathBuf {
    root.join(FOLDER).join("log.jsonl")
}

/// What a change of a file is in the log; nothing for one that changes nothing.
fn event_of(
    store: &Store,
    name: String,
    path: &Path,
    change: Change<'_>,
) -> io::Result<Option<Event>> {
    let full = store.root().join(path);
    Ok(Some(match change {
        Change::Write { bytes, .. } => written(name, bytes.len() as u64, digest_of(bytes)),
        Change::Adopt { at } => {
            let (length, digest) = digest_of_file(at)?;
            written(name, length, digest)
        }
        Change::Append { at, bytes } => Event::Appended {
            path: name,
            at,
            length: bytes.len() as u64,
            digest: digest_of(bytes),
        },
        Change::Truncate { length } => Event::Cut { path: name, length },
        Change::Rename { to } => match covers(to) {
            Some(to) => Event::Renamed { path: name, to },
            None => Event::Removed { path: name },
        },
        Change::Remove if full.exists() => Event::Removed { path: name },
        Change::RemoveFolder if full.exists() => Event::FolderRemoved { path: name },
        Change::Remove | Change::RemoveFolder | Change::Sync => return Ok(None),
    }))
}

fn written(path: String, length: u64, digest: Digest) -> Event {
    Event::Written {
        path,
        length,
        digest,
    }
}

/// The digest of a file's content, as lines have it.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(CONTENT, bytes)
}

fn digest_of_file(path: &Path) -> io::Result<(u64, Digest)> {
    Digest::of_all(CONTENT, File::open(path)?)
}
