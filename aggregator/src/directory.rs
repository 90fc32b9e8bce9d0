//! The operator's directory: configuration, keys, invitations, members, runs.
//!
//! ```text
//! aggregator.toml      configuration
//! ca.pem ca.key        the federation's certificate authority; its key may be sealed
//! ca-requests/ID.json  a certificate that waits for the authority's key
//! ca-answers/ID.pem    one that was signed, until its member has it
//! server.pem server.key the aggregator's own certificate, where the authority's key is sealed
//! ca.lock              held while the authority's key is changed
//! identity.key         the key that signs plans and results
//! invitations/NAME     an open invitation; or who used one, until it expires
//! members/NAME         a member: certificate serial, keys; members/lock, held while one is changed
//! queue/ID.json        a plan that waits, or is being carried out
//! runs/ID/             roster.json, adapters/, results.jsonl, uploads/ (emptied after each round),
//!                      evidence/, audit/ (where the operator asks for it), end.json (once it is over)
//! proposals/ID.json    what one operator proposes, and another has yet to approve; proposals/lock
//! log/                 log.jsonl, the audit log: each change of the above, signed and chained
//! status.json          what `status` prints
//! store.json           what this host remembers of the database, where there is one
//! serve.lock           locked by the process that serves the directory
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fedlora_common::files::{Access, create_private_folder, is_locked, try_lock, write_atomic};
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::IdentityKey;
use fedlora_protocol::ids::RunId;
use fedlora_transport::CertificateAuthority;
use fedlora_transport::pki::{Passphrase, PkiError, seal};
use time::OffsetDateTime;
use tracing::warn;
use zeroize::Zeroizing;

use crate::audit_log::{AuditLog, Event, LogError};
use crate::ca::passphrase::PassphraseSource;
use crate::ca::{Authority, CERTIFICATE_FILE, CaError, KEY_FILE};
use crate::clock::SystemClock;
use crate::config::AggregatorConfig;
use crate::database::{Database, SharedStore, StoreError, without_passwords};
use crate::queue::Queue;
use crate::remedy::Remedy;
use crate::run_directory::RunDirectory;
use crate::store::{Mirror, Store};

/// How long the certificate authority is valid.
const AUTHORITY_DAYS: u32 = 3650;

/// How often, and after which pause, a lock is tried.
const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An operator's directory that has been initialised.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
    store: Store,
    /// The audit log, where its keys are at hand.
    log: Option<Arc<AuditLog>>,
}

/// What the directory holds that never changes while the aggregator runs.
#[derive(Debug)]
pub struct Opened {
    /// What `aggregator.toml` says.
    pub config: AggregatorConfig,
    /// The federation's certificate authority, and the way to its key.
    pub authority: Authority,
    /// The key that signs plans and results.
    pub identity: IdentityKey,
}

impl Opened {
    /// The same with the passphrase of the authority's key, where that is sealed and one is given.
    ///
    /// # Errors
    /// [`DirectoryError::Ca`] where it does not open the key.
    pub fn with_passphrase(
        self,
        passphrase: Option<&PassphraseSource>,
    ) -> Result<Self, DirectoryError> {
        match passphrase {
            None => Ok(self),
            Some(source) => Ok(Self {
                authority: self.authority.with_passphrase(source)?,
                ..self
            }),
        }
    }
}

impl Directory {
    /// Makes a new directory with fresh keys, whose authority is valid from then on.
    ///
    /// # Errors
    /// [`DirectoryError::Exists`] where one was initialised before: keys are never overwritten.
    pub fn init(
        root: &Path,
        config: &AggregatorConfig,
        valid_from: OffsetDateTime,
    ) -> Result<Self, DirectoryError> {
        Self::init_sealed(root, config, valid_from, None)
    }

    /// The same, with the authority's key sealed by a passphrase, where there is one: it never is on disk
    /// in the clear.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn init_sealed(
        root: &Path,
        config: &AggregatorConfig,
        valid_from: OffsetDateTime,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self, DirectoryError> {
        let directory = Self {
            root: root.to_owned(),
            store: Store::folder(root),
            log: None,
        };
        let there = |name: &str| root.join(name).exists();
        // A member's keys; this one's own come after its authority's.
        let member = there("fedlora.toml") || there("identity.key") && !there("ca.key");
        if directory.config_path().exists() || member {
            return Err(DirectoryError::Exists {
                path: root.to_owned(),
            });
        }
        create_private_folder(root).map_err(|error| io_error(root, error))?;
        for folder in [directory.invitations(), directory.members()] {
            fs::create_dir_all(&folder).map_err(|error| io_error(&folder, error))?;
        }
        let (name, days) = (&config.federation, AUTHORITY_DAYS);
        let token = config.ca.as_ref().and_then(|ca| ca.pkcs11.as_ref());
        let authority = match token {
            Some(token) => Authority::create_in_token(token, name, valid_from, days)?,
            None => CertificateAuthority::create(name, valid_from, days, &mut os_rng())?,
        };
        if let Some(key) = authority.key_pem() {
            let sealed = passphrase.map(|one| seal(&key, one, &mut os_rng()));
            let text = match sealed.transpose()? {
                Some(sealed) => Zeroizing::new(sealed),
                None => key,
            };
            directory.write(KEY_FILE, text.as_bytes(), Access::Owner)?;
        }
        directory.write(
            CERTIFICATE_FILE,
            authority.certificate_pem().as_bytes(),
            Access::Everyone,
        )?;
        let identity = IdentityKey::random(&mut os_rng());
        directory.write("identity.key", identity.expose().as_slice(), Access::Owner)?;
        let text = toml::to_string_pretty(config).expect("a configuration is a TOML table");
        // Last: a directory with a configuration is whole.
        directory.write("aggregator.toml", text.as_bytes(), Access::Everyone)?;
        Ok(directory)
    }

    /// Opens a directory that was initialised before.
    ///
    /// # Errors
    /// [`DirectoryError`] naming the file that is missing or wrong.
    pub fn open(root: &Path) -> Result<(Self, Opened), DirectoryError> {
        let directory = Self {
            root: root.to_owned(),
            store: Store::folder(root),
            log: None,
        };
        let path = directory.config_path();
        if !path.exists() {
            return Err(DirectoryError::NotInitialised {
                path: root.to_owned(),
            });
        }
        let text = directory.read_text("aggregator.toml")?;
        let config: AggregatorConfig = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            DirectoryError::Config {
                path,
                line: before.map_or(1, |before| before.matches('\n').count() + 1),
                // The line itself is not shown: it may hold a password.
                reason: without_passwords(error.message()),
            }
        })?;
        let authority = Authority::open(root, config.ca.as_ref())?;
        let path = directory.root.join("identity.key");
        let seed = Zeroizing::new(fs::read(&path).map_err(|error| io_error(&path, error))?);
        let seed = <&[u8; 32]>::try_from(seed.as_slice())
            .map_err(|_| DirectoryError::IdentityKey { path })?;
        let log = AuditLog::new(IdentityKey::from_bytes(seed), Arc::new(SystemClock));
        let log = Arc::new(log);
        let opened = Opened {
            config,
            authority,
            identity: IdentityKey::from_bytes(seed),
        };
        let directory = Self {
            store: directory.store.recorded(Arc::clone(&log) as _),
            log: Some(log),
            ..directory
        };
        Ok((directory, opened))
    }

    /// The same directory, whose every change `mirror` hears of first.
    #[must_use]
    pub fn mirrored(self, mirror: Arc<dyn Mirror>) -> Self {
        Self {
            store: self.store.mirrored(mirror),
            ..self
        }
    }

    /// Opens a directory that was initialised before, in order to change it: where a store is
    /// configured, with the right to write there.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`DirectoryError::Store`] where the store cannot be used, or another
    /// host serves the federation.
    pub fn open_to_change(root: &Path) -> Result<(Self, Opened), DirectoryError> {
        let (directory, opened) = Self::open(root)?;
        match directory.shared_store(&opened)? {
            None => Ok((directory, opened)),
            Some(shared) => Ok((directory.kept_in(shared.for_command()?), opened)),
        }
    }

    /// The store behind the directory, connected to; nothing where none is configured.
    ///
    /// # Errors
    /// [`DirectoryError::Store`] where it cannot be used.
    pub fn shared_store(&self, opened: &Opened) -> Result<Option<SharedStore>, DirectoryError> {
        let config = opened.config.store.clone().unwrap_or_default();
        let config = config.with_environment();
        if config.database.is_none() && config.blobs.is_none() {
            return Ok(None);
        }
        let authority = opened.authority.fingerprint().to_string();
        Ok(Some(SharedStore::connect(&self.root, &authority, &config)?))
    }

    /// The same directory, whose changes go to a database first.
    #[must_use]
    pub fn kept_in(self, database: Arc<Database>) -> Self {
        self.mirrored(database)
    }

    /// Adds to the audit log that the aggregator is started. Where that is impossible, it says so:
    /// no change is possible then.
    pub(crate) fn record_start(&self) {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        let noted = self
            .log
            .as_ref()
            .map(|log| log.note(&self.store, Event::Started { release }));
        if let Some(Err(error)) = noted {
            warn!(%error, "the start cannot be written to the audit log");
        }
    }

    /// Adds a line of its own to the audit log.
    ///
    /// # Errors
    /// [`DirectoryError::Io`]; of a directory whose keys are not at hand.
    pub(crate) fn note(&self, event: Event) -> Result<(), DirectoryError> {
        let noted = match &self.log {
            Some(log) => log.note(&self.store, event),
            None => Err(io::Error::other("the keys are not at hand")),
        };
        noted.map_err(|error| io_error(&crate::audit_log::path_in(&self.root), error))
    }

    /// Takes what differs from the audit log as it is; gives how many files.
    ///
    /// # Errors
    /// [`LogError`]; of a directory whose keys are not at hand.
    pub(crate) fn accept_differences(&self, reason: &str) -> Result<usize, LogError> {
        match &self.log {
            Some(log) => log.accept(&self.store, reason),
            None => Err(LogError::Missing {
                folder: self.root.clone(),
            }),
        }
    }

    /// The operator's directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where every change of what is kept goes through.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The folder of open invitations, one file each.
    pub fn invitations(&self) -> PathBuf {
        self.root.join("invitations")
    }

    /// The folder of members, one file each.
    pub fn members(&self) -> PathBuf {
        self.root.join("members")
    }

    /// The plans that wait.
    pub fn queue(&self) -> Queue {
        Queue::new(self.store.clone())
    }

    /// The file that holds the status of the run.
    pub fn status_path(&self) -> PathBuf {
        Self::status_in(&self.root)
    }

    /// The same of an operator's directory that is not opened.
    pub fn status_in(root: &Path) -> PathBuf {
        root.join("status.json")
    }

    /// Locks the directory for the process that serves it.
    ///
    /// # Errors
    /// [`DirectoryError::Served`] where another process does.
    pub fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.lock_path();
        for _ in 0..LOCK_TRIES {
            match try_lock(&path).map_err(|error| io_error(&path, error))? {
                Some(lock) => return Ok(lock),
                // `status` may look at it just now.
                None => std::thread::sleep(LOCK_PAUSE),
            }
        }
        Err(DirectoryError::Served {
            path: self.root.clone(),
        })
    }

    /// Whether a process serves the directory.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the file.
    pub fn is_served(&self) -> Result<bool, DirectoryError> {
        let path = self.lock_path();
        is_locked(&path).map_err(|error| io_error(&path, error))
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("serve.lock")
    }

    /// Makes the folders of a run.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the folder.
    pub fn create_run(&self, run: RunId) -> Result<RunDirectory, DirectoryError> {
        RunDirectory::create(&self.store, run).map_err(|(path, error)| io_error(&path, error))
    }

    fn config_path(&self) -> PathBuf {
        self.root.join("aggregator.toml")
    }

    fn write(&self, name: &str, bytes: &[u8], access: Access) -> Result<(), DirectoryError> {
        let path = self.root.join(name);
        write_atomic(&path, bytes, access).map_err(|error| io_error(&path, error))
    }

    fn read_text(&self, name: &str) -> Result<String, DirectoryError> {
        let path = self.root.join(name);
        fs::read_to_string(&path).map_err(|error| io_error(&path, error))
    }
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io {
        path: path.to_owned(),
        source,
    }
}

/// What is wrong with the operator's directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// An aggregator was made there before.
    #[error("{} holds an aggregator already, or a member", path.display())]
    Exists {
        /// The directory that was named.
        path: PathBuf,
    },
    /// No aggregator was made there.
    #[error("{} holds no aggregator", path.display())]
    NotInitialised {
        /// The directory that was named.
        path: PathBuf,
    },
    /// Another process serves it.
    #[error("another process serves {} already", path.display())]
    Served {
        /// The directory that was named.
        path: PathBuf,
    },
    /// A malformed configuration.
    #[error("{}, line {line}: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why it does not parse.
        reason: String,
    },
    /// The store behind the directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An identity key of another length than 32 bytes.
    #[error("{} is not an identity key: 32 bytes are expected", path.display())]
    IdentityKey {
        /// The file that was read or written.
        path: PathBuf,
    },
    /// The certificate authority cannot be made or read, or its key not be used.
    #[error("certificate authority: {0}")]
    Ca(#[from] CaError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that was read or written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl DirectoryError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Exists { path } => Some(Remedy::ChooseAnotherDirectory {
                taken: path.clone(),
            }),
            Self::NotInitialised { path } => {
                Some(Remedy::InitialiseDirectory { path: path.clone() })
            }
            Self::Store(error) => error.remedy(),
            Self::Ca(error) => error.remedy(),
            Self::Served { .. }
            | Self::Config { .. }
            | Self::IdentityKey { .. }
            | Self::Io { .. } => None,
        }
    }
}

impl From<PkiError> for DirectoryError {
    fn from(error: PkiError) -> Self {
        Self::Ca(error.into())
    }
}
