//! Opening a store: to serve, or to stand by until that is possible; for one command; to import a
//! directory, or to compare it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fedlora_common::files::is_locked;
use fedlora_protocol::crypto::os_rng;
use rand::Rng;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::folder::{MASKED, walk};
use super::hydrate::{Extent, Known, compare, hydrate};
use super::lease::{Claim, Lease};
use super::mirror::{SharedWriter, Writer};
use super::note::StoreNote;
use super::objects::Objects;
use super::sql::Sql;
use super::worker::Worker;
use super::{Attempt, Checked, Imported, PATIENCE, StoreConfig, StoreError};
use crate::store::{Change, Mirror};

/// How long a lease lasts when it is taken or renewed, in milliseconds: a standby follows a host that
/// has failed after this time.
const LEASE: i64 = 10_000;
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(3);
/// How often to look for objects to delete that could not be deleted at once.
const SWEEP: Duration = Duration::from_secs(30);
/// How often to look for objects that one which was superseded has stored since.
const SWEEP_UNKNOWN: Duration = Duration::from_secs(600);
/// How long ending a lease may take.
const RELEASE: Duration = Duration::from_secs(5);
/// How long a command waits for another command's lease.
const COMMAND: Duration = Duration::from_secs(15);

/// A store that is connected to, before it is known who may write.
#[derive(Debug)]
pub struct SharedStore {
    root: PathBuf,
    authority: String,
    sql: Sql,
    objects: Objects,
    worker: Arc<Worker>,
    holder: String,
    host: String,
    known: Known,
    /// The change up to which the directory has followed.
    followed: Option<i64>,
}

impl SharedStore {
    /// Connects to the store of the directory at `root`, whose federation's authority has this
    /// fingerprint, and brings the database's schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]: an address that cannot be used, a database that is away, or another
    /// federation's.
    pub fn connect(root: &Path, authority: &str, config: &StoreConfig) -> Result<Self, StoreError> {
        let (database, blobs) = match (&config.database, &config.blobs) {
            (Some(database), Some(blobs)) => (database, blobs),
            (None, None) => {
                return Err(StoreError::None {
                    path: root.to_owned(),
                });
            }
            (None, Some(_)) => {
                return Err(StoreError::Incomplete {
                    missing: "database",
                });
            }
            (Some(_), None) => return Err(StoreError::Incomplete { missing: "blobs" }),
        };
        let worker = Arc::new(Worker::start()?);
        // A pool belongs to the runtime in which it is made.
        let (sql, objects) = {
            let _within = worker.handle()?.enter();
            (Sql::open(database)?, Objects::open(blobs, authority)?)
        };
        let asked = sql.clone();
        let found = worker.wait(async move {
            patiently(&asked, || asked.migrate()).await?;
            asked.authority().await
        })??;
        if let Some(found) = found.filter(|found| found != authority) {
            return Err(StoreError::OtherFederation { found });
        }
        let mut random = [0; 16];
        os_rng().fill_bytes(&mut random);
        Ok(Self {
            root: root.to_owned(),
            authority: authority.to_owned(),
            sql,
            objects,
            worker,
            holder: format!("{:032x}", u128::from_be_bytes(random)),
            host: host(),
            known: Known::new(),
            followed: None,
        })
    }

    /// Tries to take the lease, and makes the directory what the database says then; where another
    /// has it, lets the directory follow. The caller holds the directory's lock.
    ///
    /// # Errors
    /// [`StoreError`]. [`StoreError::Away`] passes; the others need a person.
    pub fn attempt(&mut self) -> Result<Attempt, StoreError> {
        let former = self.former();
        let taken = self.take_lease(former)?;
        let claim = match taken {
            Ok(claim) => claim,
            Err(lease) => {
                self.follow(&lease)?;
                return Ok(Attempt::StandsBy { host: lease.host });
            }
        };
        let writer = self.writer(claim);
        match self.prepare(&writer) {
            Ok(()) => Ok(Attempt::Serves(self.serving(writer, true)?)),
            Err(error) => {
                self.give_up(&writer);
                Err(error)
            }
        }
    }

    /// For a command that changes something: with the lease of the process that serves this
    /// directory, or where nobody serves the federation with one of its own.
    ///
    /// # Errors
    /// [`StoreError::Held`] where another host serves it.
    pub fn for_command(mut self) -> Result<Arc<Database>, StoreError> {
        let mut note = self.note()?;
        let deadline = std::time::Instant::now() + COMMAND;
        loop {
            let sql = self.sql.clone();
            let lease = self.worker.wait(async move { sql.lease().await })??;
            let mine = note.holder == lease.claim.holder && note.place == self.place();
            if lease.left > 0 && mine && self.is_served()? {
                let writer = self.writer(lease.claim);
                return self.serving(writer, false);
            }
            if self.is_served()? {
                // It stands by, or is about to serve.
                let elsewhere = lease.host != self.host || note.standby_of.is_some();
                if lease.left > 0 && elsewhere || std::time::Instant::now() >= deadline {
                    return Err(StoreError::Held { host: lease.host });
                }
                std::thread::sleep(Duration::from_millis(200));
                note = self.note()?;
                continue;
            }
            let claim = match self.take_lease(self.former())? {
                Ok(claim) => claim,
                // Another command's, on this host, ends soon.
                Err(lease)
                    if lease.host == self.host && !mine && std::time::Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(200));
                    continue;
                }
                Err(lease) => return Err(StoreError::Held { host: lease.host }),
            };
            let writer = self.writer(claim);
            let prepared = self.prepare(&writer);
            if let Err(error) = prepared {
                self.give_up(&writer);
                return Err(error);
            }
            return self.serving(writer, true);
        }
    }

    /// Stores a directory in a database that holds none; with `replace`, also in one that does, in
    /// place of what is there. Begun again after a crash it begins anew.
    ///
    /// # Errors
    /// [`StoreError::Imported`] where the database holds the directory already.
    pub fn import(self, replace: bool) -> Result<Imported, StoreError> {
        let sql = self.sql.clone();
        let found = self.worker.wait(async move { sql.authority().await })??;
        if found.is_some() && !replace {
            return Err(StoreError::Imported);
        }
        let claim = match self.take_lease(self.former())? {
            Ok(claim) => claim,
            Err(lease) => return Err(StoreError::Held { host: lease.host }),
        };
        let writer = self.writer(claim);
        let database = self.serving(Arc::clone(&writer), true)?;
        let files = walk(&self.root).map_err(|error| StoreError::io(&self.root, &error))?;
        let cleared = Arc::clone(&writer);
        self.worker
            .wait(async move { cleared.insist(|| cleared.sql.clear(&cleared.claim)).await })??;
        let mut imported = Imported { files: 0, bytes: 0 };
        for (path, length) in &files {
            let at = self.root.join(path);
            let stored = database.store(Path::new(path), Change::Adopt { at: &at });
            stored?;
            imported.files += 1;
            imported.bytes += length;
        }
        let authority = self.authority.clone();
        let named = Arc::clone(&writer);
        self.worker.wait(async move {
            let set = || named.sql.set_authority(&named.claim, &authority);
            named.insist(set).await?;
            // From now on the newest change is in the directory.
            named.note_revision().await
        })??;
        database.release();
        Ok(imported)
    }

    /// Compares directory and store; changes neither.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn check(&self) -> Result<Checked, StoreError> {
        let (sql, objects) = (self.sql.clone(), self.objects.clone());
        let root = self.root.clone();
        self.worker.wait(async move {
            let lease = sql.lease().await?;
            let files = sql.files().await?;
            let masked = files.iter().filter(|one| one.path.ends_with(MASKED));
            Ok(Checked {
                files: files.len(),
                masked_updates: masked.count(),
                loose_objects: sql.loose_objects().await?,
                differences: compare((&sql, &objects), &root).await?,
                unknown_objects: sql.unknown(&objects).await?.len(),
                served_by: (lease.left > 0).then_some(lease.host),
            })
        })?
    }

    fn writer(&self, claim: Claim) -> SharedWriter {
        let stores = (self.sql.clone(), self.objects.clone());
        Arc::new(Writer::new(stores, claim, &self.root))
    }

    /// A database that is written to; with `own`, its lease is renewed and ends with it.
    fn serving(&self, writer: SharedWriter, own: bool) -> Result<Arc<Database>, StoreError> {
        let worker = Arc::clone(&self.worker);
        let kept_up = match own {
            true => Some(worker.handle()?.spawn(keep_up(Arc::clone(&writer)))),
            false => None,
        };
        Ok(Arc::new(Database {
            writer,
            worker,
            kept_up: Mutex::new(kept_up),
        }))
    }

    /// Makes the directory what the database says, once the lease is taken.
    fn prepare(&mut self, writer: &SharedWriter) -> Result<(), StoreError> {
        let seen = self.note()?.revision;
        let place = self.place();
        let (writer, authority) = (Arc::clone(writer), self.authority.clone());
        let root = self.root.clone();
        let mut known = std::mem::take(&mut self.known);
        self.worker.wait(async move {
            let (sql, objects) = (&writer.sql, &writer.objects);
            // Fetching may take longer than the lease lasts.
            let renewal = tokio::spawn(renew(Arc::clone(&writer)));
            let done = async {
                let found = sql.lease().await?.revision;
                if found < seen {
                    let path = root.clone();
                    return Err(StoreError::SetBack { path, found, seen });
                }
                if sql.authority().await?.is_none() {
                    let there = walk(&root).map_err(|error| StoreError::io(&root, &error))?;
                    if !there.is_empty() {
                        return Err(StoreError::NotImported { path: root.clone() });
                    }
                    sql.set_authority(&writer.claim, &authority).await?;
                }
                hydrate((sql, objects), &root, &mut known, Extent::Whole).await?;
                sql.sweep(&writer.claim, objects).await?;
                let unknown = sql.sweep_unknown(objects).await?;
                if unknown > 0 {
                    info!(unknown, "objects that no file names are deleted");
                }
                let note = StoreNote {
                    holder: writer.claim.holder.clone(),
                    place,
                    revision: sql.lease().await?.revision,
                    standby_of: None,
                };
                note.write(&root)
                    .map_err(|error| StoreError::io(&root, &error))
            };
            let done = done.await;
            renewal.abort();
            done
        })?
    }

    fn give_up(&self, writer: &SharedWriter) {
        let writer = Arc::clone(writer);
        let ended = self.worker.wait(async move {
            let ended = writer.sql.end_lease(&writer.claim);
            tokio::time::timeout(RELEASE, ended).await
        });
        if !matches!(ended, Ok(Ok(Ok(())))) {
            warn!("the lease could not be given back: it ends by itself");
        }
    }

    /// Lets the directory follow the database, where that has changed.
    fn follow(&mut self, lease: &Lease) -> Result<(), StoreError> {
        let mut note = self.note()?;
        if self.followed.is_none() && note.revision > lease.revision {
            return Err(StoreError::SetBack {
                path: self.root.clone(),
                found: lease.revision,
                seen: note.revision,
            });
        }
        let standby_of = Some(lease.host.clone());
        if self.followed == Some(lease.revision) && note.standby_of == standby_of {
            return Ok(());
        }
        let (sql, objects) = (self.sql.clone(), self.objects.clone());
        let root = self.root.clone();
        let mut known = std::mem::take(&mut self.known);
        let imported = {
            let sql = sql.clone();
            self.worker.wait(async move { sql.authority().await })??
        };
        if imported.is_none() {
            // The other host is about to fill the database.
            return Ok(());
        }
        let (known, done) = self.worker.wait(async move {
            let done = hydrate((&sql, &objects), &root, &mut known, Extent::Following).await;
            (known, done)
        })?;
        self.known = known;
        done?;
        self.followed = Some(lease.revision);
        note.revision = lease.revision;
        note.standby_of = standby_of;
        note.place = self.place();
        let written = note.write(&self.root);
        written.map_err(|error| StoreError::io(&StoreNote::path(&self.root), &error))
    }

    /// Takes the lease; gives how it stands where another has it.
    fn take_lease(&self, former: String) -> Result<Result<Claim, Lease>, StoreError> {
        let sql = self.sql.clone();
        let (holder, host) = (self.holder.clone(), self.host.clone());
        self.worker.wait(async move {
            let taken = sql.take_lease((&holder, &host), &former, LEASE).await?;
            Ok(match taken {
                Some(claim) => Ok(claim),
                None => Err(sql.lease().await?),
            })
        })?
    }

    /// The name by which a process that served this directory had the lease. It is over: the
    /// directory's lock is held by this one, or by nobody.
    fn former(&self) -> String {
        let note = self.note().unwrap_or_default();
        match note.place == self.place() && !note.holder.is_empty() {
            true => note.holder,
            false => self.holder.clone(),
        }
    }

    fn note(&self) -> Result<StoreNote, StoreError> {
        let path = StoreNote::path(&self.root);
        StoreNote::read(&self.root).map_err(|error| StoreError::io(&path, &error))
    }

    /// This host and directory.
    pub(super) fn place(&self) -> String {
        let root = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        format!("{}:{}", self.host, root.display())
    }

    fn is_served(&self) -> Result<bool, StoreError> {
        let path = self.root.join("serve.lock");
        is_locked(&path).map_err(|error| StoreError::io(&path, &error))
    }
}

/// A database and an object store that this process may write to. Ends its lease when dropped.
#[derive(Debug)]
pub struct Database {
    pub(super) writer: SharedWriter,
    pub(super) worker: Arc<Worker>,
    /// What keeps the lease, where it is this one's to end.
    kept_up: Mutex<Option<JoinHandle<()>>>,
}

impl Database {
    /// Ends the lease, where it is this process's own: another may serve at once.
    pub fn release(&self) {
        let kept_up = self
            .kept_up
            .lock()
            .expect("no thread panics with it")
            .take();
        let Some(kept_up) = kept_up else {
            return;
        };
        let writer = Arc::clone(&self.writer);
        let ended = self.worker.wait(async move {
            let ended = async {
                // Nothing renews the lease, or writes the note, beside what follows.
                kept_up.abort();
                let _ = kept_up.await;
                let (sql, claim) = (&writer.sql, &writer.claim);
                let swept = sql.sweep(claim, &writer.objects);
                match tokio::time::timeout(RELEASE, swept).await {
                    Ok(Ok(()) | Err(StoreError::Lost { .. })) => {}
                    _ => warn!("objects that nothing names stay until the next start"),
                }
                if let Err(error) = writer.note_revision().await {
                    warn!(%error, "what this host has of the store cannot be noted");
                }
                sql.end_lease(claim).await
            };
            tokio::time::timeout(RELEASE * 2, ended).await
        });
        if let Ok(Ok(Err(StoreError::Lost { .. }))) = ended {
            return;
        }
        if !matches!(ended, Ok(Ok(Ok(())))) {
            warn!("the lease could not be given back: it ends by itself");
        }
    }

    /// Waits until another host has taken the lease over.
    pub async fn lost(&self) -> StoreError {
        let mut lost = self.writer.lost.subscribe();
        let host = lost.wait_for(Option::is_some).await;
        let host = host.ok().and_then(|host| host.clone());
        StoreError::Lost {
            host: host.unwrap_or_default(),
        }
    }

    fn store(&self, path: &Path, change: Change<'_>) -> Result<(), StoreError> {
        let prepared = self.writer.prepare(path, change);
        let prepared = prepared.map_err(|error| StoreError::io(path, &error))?;
        match prepared {
            None => Ok(()),
            Some(change) => {
                let writer = Arc::clone(&self.writer);
                self.worker.wait(async move { writer.make(change).await })?
            }
        }
    }
}

impl Mirror for Database {
    fn change(&self, path: &Path, change: Change<'_>) -> io::Result<()> {
        let Some(change) = self.writer.prepare(path, change)? else {
            return Ok(());
        };
        let writer = Arc::clone(&self.writer);
        let made = self.worker.wait(async move { writer.make(change).await });
        made.and_then(|made| made).map_err(io::Error::from)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.release();
    }
}

impl Writer {
    /// Notes the newest change: the directory has it.
    pub(super) async fn note_revision(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.noting.lock().await;
        let lease = self.sql.lease().await?;
        if lease.claim != self.claim {
            return Err(StoreError::Lost { host: lease.host });
        }
        let path = StoreNote::path(&self.root);
        let noted = StoreNote::read(&self.root).and_then(|mut note| {
            if note.revision != lease.revision {
                note.revision = lease.revision;
                note.write(&self.root)?;
            }
            Ok(())
        });
        noted.map_err(|error| StoreError::io(&path, &error))
    }
}

/// Renews the lease until it is another's.
async fn renew(writer: SharedWriter) {
    let mut away = false;
    while writer.lost.borrow().is_none() {
        let renewed = writer.sql.renew_lease(&writer.claim, LEASE);
        match tokio::time::timeout(RENEWAL, renewed).await {
            Ok(Ok(true)) => {
                if away {
                    info!("the store answers again");
                }
                away = false;
            }
            Ok(Ok(false)) => {
                if let StoreError::Lost { host } = writer.sql.lost().await {
                    writer.lost.send_replace(Some(host));
                }
            }
            Ok(Err(error)) if !away => {
                warn!(%error, "the lease cannot be renewed; trying again");
                away = true;
            }
            Err(_) if !away => {
                warn!("the lease cannot be renewed: the database does not answer; trying again");
                away = true;
            }
            _ => {}
        }
        tokio::time::sleep(RENEWAL).await;
    }
}

/// Renews the lease, and tidies up.
async fn keep_up(writer: SharedWriter) {
    tokio::join!(renew(Arc::clone(&writer)), tidy_up(writer));
}

/// Deletes objects that nothing names any more, and notes what the directory has.
async fn tidy_up(writer: SharedWriter) {
    let mut next_look = Instant::now() + SWEEP_UNKNOWN;
    while writer.lost.borrow().is_none() {
        let _ = tokio::time::timeout(SWEEP, writer.loosened.notified()).await;
        if let Err(error) = writer.sql.sweep(&writer.claim, &writer.objects).await {
            warn!(%error, "objects that nothing names cannot be deleted; trying again");
            tokio::time::sleep(RENEWAL).await;
            continue;
        }
        if Instant::now() >= next_look {
            next_look = Instant::now() + SWEEP_UNKNOWN;
            if let Err(error) = writer.sql.sweep_unknown(&writer.objects).await {
                warn!(%error, "objects that nothing names cannot be looked for");
            }
        }
        if let Err(error) = writer.note_revision().await {
            warn!(%error, "what this host has of the store cannot be noted");
        }
        // Many changes in a row need no look each.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Tries something until the database answers, or has been away for long.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    sql: &Sql,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Err(StoreError::Away { .. })) if Instant::now() + RENEWAL < deadline => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(other) => return other,
            Err(_) => {
                return Err(StoreError::Away {
                    shown: sql.shown.clone(),
                    reason: format!("no answer within {} s", PATIENCE.as_secs()),
                });
            }
        }
    }
}

/// This host's name.
fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
