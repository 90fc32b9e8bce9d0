//! The member's directory: configuration, keys, pinned roster, round log, adapters.
//!
//! ```text
//! fedlora.toml     configuration: name, address, aggregator, floors; fedlora.toml.left of a member
//!                  that has left
//! identity.key     the key that signs this member's messages
//! tls.key tls.pem  the key and certificate of its connections
//! ca.pem           the federation's certificate authority, pinned when joining
//! roster.json      the roster that the member has accepted last; roster.known.json, members of earlier ones
//! roster.pending.json  one that was shown and waits for the member's consent
//! ledger.json      which rounds were opened and revealed
//! runs/ID/         what proves a run: its plan, roster and results; earlier runs' adapters; `over`
//! plan.pending.json, plan.decision.json, agent.json, paused   of the agent (`agent::files`)
//! outcome.json     which run the adapters below are of
//! adapter/         the adapter that the member keeps, in PEFT's form
//! global/          the federation's newest adapter, in PEFT's form
//! scores.json      how the adapters that it chose from scored
//! run.lock         locked by the process that takes part
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{
    Access, create_private_folder, is_locked, sync_parent, try_lock, write_atomic,
};
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::crypto::sign::{IdentityKey, IdentityPublic};
use fedlora_protocol::fixed::WeightClass;
use fedlora_protocol::ids::{MemberName, RunId};
use fedlora_protocol::plan::Floors;
use fedlora_transport::pki::PkiError;
use fedlora_transport::{
    Certificate, Credentials, Peer, Silence, TlsError, TlsKeyPair, TransportChoice,
    check_member_certificate,
};
use serde::{Deserialize, Serialize};

use crate::agent::{AgentConfig, AgentFiles};
use crate::ledger::FileLedger;
use crate::receipts;
use crate::remedy::Remedy;
use crate::roster_pin::FileRosterPin;
use zeroize::Zeroizing;

/// How often, and after which pause, a lock is tried.
const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// `fedlora.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// This member's name, unique in the federation.
    pub name: MemberName,
    /// The federation's name.
    pub federation: String,
    /// Host and port of the aggregator.
    pub address: String,
    /// What connections run over: `auto`, the default (QUIC, and TCP where QUIC is not answered),
    /// `quic` or `tcp`.
    #[serde(default, skip_serializing_if = "TransportChoice::is_auto")]
    pub transport: TransportChoice,
    /// Silence in seconds after which this member takes its connection for dead and connects again: 3
    /// to 30. Something goes out at a third of it. Lower it where a NAT or firewall forgets sooner.
    #[serde(default, skip_serializing_if = "Silence::is_default")]
    pub silence: Silence,
    /// The aggregator's identity key, which signs plans and results.
    pub aggregator: IdentityPublic,
    /// The weight class that this member agrees to show where a plan weighs members: class k stands
    /// for 2^k to 2^(k+1) - 1 training examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_class: Option<WeightClass>,
    /// This member's own limits, which a plan must keep to.
    #[serde(default)]
    pub floors: Floors,
    /// What its agent does without its user.
    #[serde(default, skip_serializing_if = "AgentConfig::is_default")]
    pub agent: AgentConfig,
}

/// `outcome.json`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct OutcomeOf {
    /// The run that adapters and scores are of.
    run: RunId,
}

/// A member's directory.
#[derive(Debug, Clone)]
pub struct MemberDirectory {
    root: PathBuf,
}

/// What a member needs to take part.
#[derive(Debug)]
pub struct Membership {
    /// What `fedlora.toml` says.
    pub config: MemberConfig,
    /// The key that signs this member's messages.
    pub identity: IdentityKey,
    /// The key and certificate of its connections.
    pub credentials: Credentials,
    /// The pinned certificate authority.
    pub authority: Certificate,
    /// Takes the certificates that follow.
    pub renewal: Renewal,
}

/// Puts another certificate for the same key in the place of a member's.
#[derive(Debug)]
pub struct Renewal {
    directory: MemberDirectory,
    key: TlsKeyPair,
}

impl Renewal {
    /// Checks a certificate that the aggregator gave, keeps it, and gives the credentials with it.
    ///
    /// # Errors
    /// A certificate that is for another name or key, that `authority` did not issue or that is not
    /// valid at `now`; or one that cannot be written. Nothing has changed then.
    pub fn take(
        &self,
        certificate: Certificate,
        name: &MemberName,
        authority: &Certificate,
        now: Timestamp,
    ) -> Result<Credentials, RenewalError> {
        let peer = Peer::from_certificate(&certificate)?;
        if peer.name != *name {
            return Err(RenewalError::Name { name: peer.name });
        }
        let credentials = Credentials::new(certificate, &self.key)?;
        let certificate = credentials.certificate();
        check_member_certificate(certificate, authority, now)?;
        let directory = &self.directory;
        directory.write("tls.pem", certificate.to_pem().as_bytes(), Access::Everyone)?;
        Ok(credentials)
    }
}

/// Why another certificate was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// For another member.
    #[error("it is for {name}")]
    Name {
        /// The name in it.
        name: MemberName,
    },
    /// For another key, or malformed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Not from the federation's authority, or not valid now.
    #[error(transparent)]
    Verification(#[from] TlsError),
    /// It cannot be written.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl MemberDirectory {
    /// A directory to join into.
    ///
    /// # Errors
    /// [`DirectoryError::Joined`] where a membership is in it: keys are never overwritten.
    pub fn create(root: &Path) -> Result<Self, DirectoryError> {
        let directory = Self {
            root: root.to_owned(),
        };
        // The aggregator's has an identity key as well.
        let taken = ["fedlora.toml", "aggregator.toml"];
        if taken.iter().any(|name| directory.path(name).exists()) {
            return Err(DirectoryError::Joined {
                path: root.to_owned(),
            });
        }
        create_private_folder(root).map_err(|error| io_error(root, error))?;
        Ok(directory)
    }

    /// Locks the directory for the process that takes part in runs: two with one name would evict each
    /// other.
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] where another process does.
    pub fn lock(&self) -> Result<File, DirectoryError> {
        let path = self.path("run.lock");
        for _ in 0..LOCK_TRIES {
            if let Some(lock) = try_lock(&path).map_err(|error| io_error(&path, error))? {
                return Ok(lock);
            }
            // `status` may look at it just now.
            std::thread::sleep(LOCK_PAUSE);
        }
        Err(DirectoryError::InUse {
            path: self.root.clone(),
        })
    }

    /// The keys to join with: those of a join that did not come to its end, or new ones. They are on
    /// the disk before the aggregator hears of them, so that an invitation that was used up is not lost.
    ///
    /// # Errors
    /// [`DirectoryError`] naming the file.
    pub fn keys(&self) -> Result<(IdentityKey, TlsKeyPair), DirectoryError> {
        let identity = match self.path("identity.key").exists() {
            true => self.identity()?,
            false => {
                let identity = IdentityKey::random(&mut os_rng());
                self.write("identity.key", identity.expose().as_slice(), Access::Owner)?;
                identity
            }
        };
        let tls = match self.path("tls.key").exists() {
            true => self.tls_key()?,
            false => {
                let tls = TlsKeyPair::generate()?;
                self.write("tls.key", tls.to_pem().as_bytes(), Access::Owner)?;
                tls
            }
        };
        Ok((identity, tls))
    }

    fn identity(&self) -> Result<IdentityKey, DirectoryError> {
        let path = self.path("identity.key");
        let seed = Zeroizing::new(fs::read(&path).map_err(|error| io_error(&path, error))?);
        let seed = <&[u8; 32]>::try_from(seed.as_slice())
            .map_err(|_| DirectoryError::IdentityKey { path })?;
        Ok(IdentityKey::from_bytes(seed))
    }

    fn tls_key(&self) -> Result<TlsKeyPair, DirectoryError> {
        let text = Zeroizing::new(self.read_text("tls.key")?);
        Ok(TlsKeyPair::from_pem(&text)?)
    }

    /// Stores a new membership with these [`keys`](Self::keys). The configuration comes last: a
    /// directory with one is whole.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the file.
    pub fn store(
        &self,
        config: &MemberConfig,
        certificate: &Certificate,
        authority: &Certificate,
    ) -> Result<(), DirectoryError> {
        self.write("tls.pem", certificate.to_pem().as_bytes(), Access::Everyone)?;
        self.write("ca.pem", authority.to_pem().as_bytes(), Access::Everyone)?;
        let text = toml::to_string_pretty(config).expect("a configuration is a TOML table");
        self.write("fedlora.toml", text.as_bytes(), Access::Everyone)
    }

    /// Opens a directory that a member joined into.
    ///
    /// # Errors
    /// [`DirectoryError`] naming the file that is missing or wrong.
    pub fn open(root: &Path) -> Result<(Self, Membership), DirectoryError> {
        let directory = Self {
            root: root.to_owned(),
        };
        let config = directory.read_config()?;
        let tls = directory.tls_key()?;
        let certificate = Certificate::from_pem(&directory.read_text("tls.pem")?)?;
        let membership = Membership {
            config,
            identity: directory.identity()?,
            credentials: Credentials::new(certificate, &tls)?,
            renewal: Renewal {
                directory: directory.clone(),
                key: tls,
            },
            authority: Certificate::from_pem(&directory.read_text("ca.pem")?)?,
        };
        Ok((directory, membership))
    }

    /// Ends the membership here: its keys go, and the configuration gets another name. What proves the
    /// runs that it was in, the round log and the adapters stay.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the file that is left.
    pub fn end_membership(&self) -> Result<(), DirectoryError> {
        let (config, left) = (self.path("fedlora.toml"), self.path("fedlora.toml.left"));
        fs::rename(&config, &left).map_err(|error| io_error(&config, error))?;
        for key in ["identity.key", "tls.key"].map(|name| self.path(name)) {
            fs::remove_file(&key).map_err(|error| io_error(&key, error))?;
        }
        sync_parent(&left).map_err(|error| io_error(&left, error))
    }

    /// Reads `fedlora.toml`, as it stands now.
    ///
    /// # Errors
    /// [`DirectoryError::NotJoined`] or [`DirectoryError::Config`].
    pub fn read_config(&self) -> Result<MemberConfig, DirectoryError> {
        let path = self.path("fedlora.toml");
        if !path.exists() {
            return Err(DirectoryError::NotJoined {
                path: self.root.clone(),
            });
        }
        let text = self.read_text("fedlora.toml")?;
        toml::from_str(&text).map_err(|error| DirectoryError::Config {
            path,
            message: error.to_string(),
        })
    }

    /// The agent's files.
    pub fn agent(&self) -> AgentFiles {
        AgentFiles::new(&self.root)
    }

    /// When this member took a run's roster and plan; nothing where it has not.
    pub fn begun(&self, run: RunId) -> Option<SystemTime> {
        let receipt = self.runs().join(run.to_string()).join("run.json");
        fs::metadata(receipt).ok()?.modified().ok()
    }

    /// Whether a process takes part with the directory.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the file.
    pub fn is_in_use(&self) -> Result<bool, DirectoryError> {
        let path = self.path("run.lock");
        is_locked(&path).map_err(|error| io_error(&path, error))
    }

    /// Whether a run is over for this member.
    pub fn is_over(&self, run: RunId) -> bool {
        self.over_path(run).exists()
    }

    /// Notes that a run is over for this member, and what it came to.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the file.
    pub fn end_run(&self, run: RunId, outcome: &str) -> Result<(), DirectoryError> {
        let path = self.over_path(run);
        let folder = self.runs().join(run.to_string());
        create_private_folder(&folder).map_err(|error| io_error(&folder, error))?;
        write_atomic(&path, outcome.as_bytes(), Access::Owner)
            .map_err(|error| io_error(&path, error))
    }

    fn over_path(&self, run: RunId) -> PathBuf {
        self.runs().join(run.to_string()).join("over")
    }

    /// Where the adapter that the member keeps is written.
    pub fn adapter(&self) -> PathBuf {
        self.path("adapter")
    }

    /// Where the newest global adapter is written.
    pub fn global(&self) -> PathBuf {
        self.path("global")
    }

    /// Where the scores of the adapters are written.
    pub fn scores(&self) -> PathBuf {
        self.path("scores.json")
    }

    /// The folder of what is kept of each run.
    pub fn runs(&self) -> PathBuf {
        self.path("runs")
    }

    /// Puts the adapters and scores of another run than `run` away, into that run's folder, and notes
    /// that those which follow are of `run`.
    ///
    /// # Errors
    /// [`DirectoryError::Io`] naming the file.
    pub fn begin_outcome(&self, run: RunId) -> Result<(), DirectoryError> {
        let path = self.path("outcome.json");
        let before = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<OutcomeOf>(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(&path, error)),
        };
        if let Some(before) = before.filter(|before| before.run != run) {
            let folder = self.runs().join(before.run.to_string());
            create_private_folder(&folder).map_err(|error| io_error(&folder, error))?;
            for from in [self.adapter(), self.global(), self.scores()] {
                let to = folder.join(from.file_name().unwrap_or_default());
                if from.exists() && !to.exists() {
                    fs::rename(&from, &to).map_err(|error| io_error(&from, error))?;
                }
            }
        }
        let text = serde_json::to_vec_pretty(&OutcomeOf { run }).expect("text keys");
        self.write("outcome.json", &text, Access::Owner)
    }

    /// Checks that the round log is there, where this member is in the sum of a round: without it the
    /// member cannot know what it has revealed.
    ///
    /// # Errors
    /// [`DirectoryError::LedgerLost`] naming a run; [`DirectoryError::Io`] where receipts cannot be read.
    pub fn check_ledger(&self, member: &MemberName) -> Result<(), DirectoryError> {
        let path = self.path("ledger.json");
        if path.exists() {
            return Ok(());
        }
        let folders = receipts::folders(&self.runs());
        let folders = folders.map_err(|error| io_error(&self.runs(), io::Error::other(error)))?;
        for folder in folders {
            // What does not verify proves nothing.
            let Ok(kept) = receipts::verify(&folder) else {
                continue;
            };
            let index = kept.receipt.roster.index_of(member);
            if index.is_some_and(|index| kept.verified.rounds_of(index) > 0) {
                return Err(DirectoryError::LedgerLost {
                    path,
                    run: kept.verified.run,
                });
            }
        }
        Ok(())
    }

    /// The durable round log.
    pub fn ledger(&self) -> FileLedger {
        FileLedger::new(self.path("ledger.json"))
    }

    /// The durable roster pin. `named` is the digest of the roster that the member accepts
    /// beforehand, the first or a changed one; every other is refused then.
    pub fn roster_pin(&self, named: Option<Digest>) -> FileRosterPin {
        FileRosterPin::new(&self.root, named)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8], access: Access) -> Result<(), DirectoryError> {
        let path = self.path(name);
        write_atomic(&path, bytes, access).map_err(|error| io_error(&path, error))
    }

    fn read_text(&self, name: &str) -> Result<String, DirectoryError> {
        let path = self.path(name);
        fs::read_to_string(&path).map_err(|error| io_error(&path, error))
    }
}

fn io_error(path: &Path, source: io::Error) -> DirectoryError {
    DirectoryError::Io {
        path: path.to_owned(),
        source,
    }
}

impl DirectoryError {
    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Joined { path } => Some(Remedy::OtherDirectory { path: path.clone() }),
            Self::NotJoined { path } => Some(Remedy::JoinFirst { path: path.clone() }),
            Self::LedgerLost { .. } => Some(Remedy::OtherKeys),
            Self::InUse { .. }
            | Self::Config { .. }
            | Self::IdentityKey { .. }
            | Self::Pki(_)
            | Self::Io { .. } => None,
        }
    }
}

/// Why a member's directory cannot be created, read or written.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory holds a membership, which is not overwritten.
    #[error("{} holds a membership already, or an aggregator", path.display())]
    Joined {
        /// The directory that was named.
        path: PathBuf,
    },
    /// Nobody has joined into the directory.
    #[error("{} holds no membership", path.display())]
    NotJoined {
        /// The directory that was named.
        path: PathBuf,
    },
    /// Another process takes part with it.
    #[error("another process takes part with {} already", path.display())]
    InUse {
        /// The directory that was named.
        path: PathBuf,
    },
    /// The round log is gone.
    #[error(
        "{} is missing, although this member took part in run {run}: without it the member cannot know \
         what it has revealed, and takes part in no round",
        path.display()
    )]
    LedgerLost {
        /// Where the log should be.
        path: PathBuf,
        /// A run in whose sums the member is.
        run: RunId,
    },
    /// A configuration that does not parse.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file that was read or written.
        path: PathBuf,
        /// Where and why it does not parse.
        message: String,
    },
    /// An identity key of another length than 32 bytes.
    #[error("{} is not an identity key: 32 bytes are expected", path.display())]
    IdentityKey {
        /// The file that was read or written.
        path: PathBuf,
    },
    /// A key or certificate that cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that was read or written.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
