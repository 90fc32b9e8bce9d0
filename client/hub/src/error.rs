//! What can go wrong between here and the hub.

use std::io;
use std::path::PathBuf;

use super::name::HubName;
use super::remedy::Remedy;

/// A base that cannot be had from the hub. No variant holds a token or a signed address.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// `HF_ENDPOINT` cannot be used.
    #[error("HF_ENDPOINT cannot be used: {why}")]
    Endpoint {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A token with characters that cannot be sent in a header.
    #[error("{from} holds a token with characters that no token has")]
    Token {
        /// The variable or file.
        from: String,
    },
    /// A file that the environment names cannot be read.
    #[error("cannot read the token in {}: {source}", path.display())]
    TokenFile {
        /// Path of the file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// There is no place for the cache.
    #[error("there is no place to keep models: the environment names no folder and no home")]
    NoHome,
    /// No answer, or a connection that broke too often.
    #[error("cannot reach {host}: {why}; what was fetched so far is kept")]
    Network {
        /// Host name of the machine.
        host: String,
        /// What the network said.
        why: String,
    },
    /// The hub is up but does not serve.
    #[error("{host} answers with status {status}; what was fetched so far is kept")]
    Status {
        /// Host name of the machine.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// No such model, or not for us.
    #[error("the hub has no model {repo}, or it is private{}", if *token { " and the token in use cannot see it" } else { "" })]
    NoRepo {
        /// `owner/name`.
        repo: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// No such branch, tag or commit.
    #[error("{repo} has no revision '{revision}'")]
    NoRevision {
        /// `owner/name`.
        repo: String,
        /// What was asked for.
        revision: String,
    },
    /// No such file.
    #[error("{repo} has no file {file}{}", list(.others))]
    NoFile {
        /// `owner/name`.
        repo: String,
        /// What was asked for.
        file: String,
        /// What could have been meant.
        others: Vec<String>,
    },
    /// The owner asks for consent first.
    #[error("{repo} is gated{}", if *token { ": the account of the token in use has no access" } else { ": its owner asks for consent, and no token was sent" })]
    Gated {
        /// `owner/name`.
        repo: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The token is wrong, or one is needed.
    #[error("{}", if *token { format!("the hub refuses the token for {repo}") } else { format!("the hub wants a token for {repo}") })]
    Unauthorized {
        /// `owner/name`.
        repo: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// Nothing that we can load.
    #[error("{repo} has no weights that can be loaded: {found}")]
    NoWeights {
        /// `owner/name`.
        repo: String,
        /// What is there instead.
        found: &'static str,
    },
    /// Several GGUF files, and none is named.
    #[error("{repo} has several GGUF files{}", list(.files))]
    WhichGguf {
        /// `owner/name`.
        repo: String,
        /// Which there are.
        files: Vec<String>,
    },
    /// `HF_HUB_OFFLINE` is set and not all is here.
    #[error("{name} is not in {}, or not whole, and HF_HUB_OFFLINE forbids to fetch it", cache.display())]
    Offline {
        /// What was asked for.
        name: HubName,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// A path that leads out of the cache.
    #[error("the hub names a file that is not one of the model's: {path:?}; nothing was written")]
    Path {
        /// The path, as the hub gave it.
        path: String,
    },
    /// A redirect to where we do not follow.
    #[error("the hub sends us to {target}, which is not HTTPS")]
    Redirect {
        /// Scheme and machine.
        target: String,
    },
    /// An answer that is not the hub's protocol.
    #[error("{host} does not answer as a hub does: {what}")]
    Protocol {
        /// Host name of the machine.
        host: String,
        /// What is missing or wrong.
        what: String,
    },
    /// A file is not what the hub announced.
    #[error("{file} is not the file that the hub announced (its hash differs); it was deleted")]
    Hash {
        /// Name of the file in the repository.
        file: String,
    },
    /// The disk is full.
    #[error("the disk is full: {} needs {} more", path.display(), indicatif::HumanBytes(*missing))]
    DiskFull {
        /// Path of the file.
        path: PathBuf,
        /// Bytes still to come when it filled up.
        missing: u64,
    },
    /// The cache cannot be read or written.
    #[error("the model cache: {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The machinery of the connection cannot start.
    #[error("cannot set up a connection: {0}")]
    Setup(String),
}

impl HubError {
    /// What would help, where that is known.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::NoHome => Some(Remedy::NameCacheFolder),
            Self::Network { .. } | Self::Status { .. } | Self::Hash { .. } => Some(Remedy::Retry),
            Self::NoRepo { token: false, .. } | Self::Unauthorized { token: false, .. } => {
                Some(Remedy::SetToken)
            }
            Self::Unauthorized { token: true, .. } => Some(Remedy::CheckToken),
            Self::Gated { token, .. } => Some(Remedy::AcceptLicence {
                other_account: *token,
            }),
            Self::WhichGguf { repo, .. } => Some(Remedy::NameFile { repo: repo.clone() }),
            Self::DiskFull { .. } => Some(Remedy::OtherDisk),
            _ => None,
        }
    }

    /// A failure of the disk, told apart by whether it is full.
    pub(super) fn disk(path: impl Into<PathBuf>, missing: u64, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, missing }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// Up to a dozen names to choose from.
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names if names.len() > 12 => format!("; there are {}, ...", names[..12].join(", ")),
        names => format!("; there are {}", names.join(", ")),
    }
}
