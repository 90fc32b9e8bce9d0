//! Certificates that wait for the authority's key: one file for each request in `ca-requests/`. What was
//! signed for a member lies in `ca-answers/`, until the member shows that it has it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, write_atomic};
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::MemberName;
use fedlora_protocol::wire::session::JoinRequest;
use fedlora_transport::pki::{Issued, PkiError, request_key};
use fedlora_transport::{Certificate, Peer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tracing::warn;

use super::{CaError, io_error};

/// A certificate that waits for the authority's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CertificateRequest {
    /// The aggregator's own.
    Server {
        /// The signing request (PKCS #10).
        request: Der,
        /// When it was asked for.
        asked: Timestamp,
    },
    /// That of somebody who was invited.
    Join {
        /// The invited name.
        name: MemberName,
        /// The public half of its identity key.
        identity: IdentityPublic,
        /// The signing request (PKCS #10).
        request: Der,
        /// The digest of the invitation's secret.
        secret: Digest,
        /// When it was asked for.
        asked: Timestamp,
    },
    /// Another certificate for a member, whose own ends.
    Renewal {
        /// The member's name.
        name: MemberName,
        /// The certificate that it has.
        shown: Der,
        /// When it was asked for.
        asked: Timestamp,
    },
}

/// Bytes in DER; base64 in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Der(pub Vec<u8>);

impl Serialize for Der {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Der {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(de::Error::custom)
    }
}

impl CertificateRequest {
    /// The request's name among those that wait: `server`, `join-NAME` or `renewal-NAME`.
    pub fn id(&self) -> String {
        match self {
            Self::Server { .. } => "server".to_owned(),
            Self::Join { name, .. } => format!("join-{name}"),
            Self::Renewal { name, .. } => format!("renewal-{name}"),
        }
    }

    /// `server`, `join` or `renewal`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Server { .. } => "server",
            Self::Join { .. } => "join",
            Self::Renewal { .. } => "renewal",
        }
    }

    /// The member that it is for; nothing for the aggregator's own.
    pub fn member(&self) -> Option<&MemberName> {
        match self {
            Self::Server { .. } => None,
            Self::Join { name, .. } | Self::Renewal { name, .. } => Some(name),
        }
    }

    /// The identity key of somebody who joins.
    pub fn identity(&self) -> Option<&IdentityPublic> {
        match self {
            Self::Join { identity, .. } => Some(identity),
            Self::Server { .. } | Self::Renewal { .. } => None,
        }
    }

    /// The digest of the key that the certificate is to be for.
    ///
    /// # Errors
    /// A signing request or certificate that cannot be read.
    pub fn key(&self) -> Result<Digest, PkiError> {
        match self {
            Self::Server { request, .. } | Self::Join { request, .. } => request_key(&request.0),
            Self::Renewal { shown, .. } => {
                Ok(Peer::from_certificate(&Certificate::from_der(shown.0.clone()))?.key)
            }
        }
    }

    /// When it was asked for.
    pub fn asked(&self) -> Timestamp {
        match self {
            Self::Server { asked, .. } | Self::Join { asked, .. } | Self::Renewal { asked, .. } => {
                *asked
            }
        }
    }
}

/// What waits for a member's request.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// The certificate was signed.
    Signed(Issued),
    /// It still waits.
    Waits,
    /// It waits for other keys, which have used the same invitation.
    OtherKeys,
}

/// The requests and answers in an operator's directory.
#[derive(Debug, Clone)]
pub struct Requests {
    root: PathBuf,
}

impl Requests {
    /// Those in the operator's directory `root`. Reads nothing yet.
    pub fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// All that waits: the aggregator's own, then by name.
    ///
    /// # Errors
    /// [`CaError::Request`] for a malformed file, or [`CaError::Io`].
    pub fn all(&self) -> Result<Vec<CertificateRequest>, CaError> {
        let folder = self.folder();
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| io_error(&folder, error))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| io_error(&folder, error))?.path();
            if path.extension().is_some_and(|end| end == "json") {
                found.extend(read(&path)?);
            }
        }
        found.sort_by_key(|one| (one.member().cloned(), one.kind()));
        Ok(found)
    }

    /// The request of this name, where it waits.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    pub(super) fn waiting(&self, id: &str) -> Result<Option<CertificateRequest>, CaError> {
        Ok(self.all()?.into_iter().find(|one| one.id() == id))
    }

    /// What waits for the certificate of somebody who joins; from now on at the latest.
    ///
    /// # Errors
    /// A request whose signature does not verify, or a file that cannot be read or written.
    pub(crate) fn joining(
        &self,
        request: &JoinRequest,
        now: Timestamp,
    ) -> Result<Waiting, CaError> {
        let key = request_key(&request.certificate_request)?;
        let waiting = CertificateRequest::Join {
            name: request.name.clone(),
            identity: request.identity,
            request: Der(request.certificate_request.clone()),
            secret: request.secret.digest(),
            asked: now,
        };
        let id = waiting.id();
        if let Some(issued) = self.answer(&id)? {
            return match issued.key == key {
                true => Ok(Waiting::Signed(issued)),
                false => Ok(Waiting::OtherKeys),
            };
        }
        if let Some(CertificateRequest::Join {
            identity,
            request: before,
            secret,
            ..
        }) = read(&self.path(&id))?
            && secret == request.secret.digest()
        {
            return match identity == request.identity && request_key(&before.0)? == key {
                true => Ok(Waiting::Waits),
                false => Ok(Waiting::OtherKeys),
            };
        }
        self.put(&waiting)?;
        Ok(Waiting::Waits)
    }

    /// What waits for another certificate of a member, whose own ends; from now on at the latest.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(crate) fn renewing(
        &self,
        peer: &Peer,
        shown: &Certificate,
        now: Timestamp,
    ) -> Result<Waiting, CaError> {
        let waiting = CertificateRequest::Renewal {
            name: peer.name.clone(),
            shown: Der(shown.as_der().to_vec()),
            asked: now,
        };
        let id = waiting.id();
        if let Some(issued) = self.answer(&id)?
            && issued.key == peer.key
            && end_of(&issued) > peer.not_after
        {
            return Ok(Waiting::Signed(issued));
        }
        if let Some(CertificateRequest::Renewal { shown: before, .. }) = read(&self.path(&id))?
            && before.0 == shown.as_der()
        {
            return Ok(Waiting::Waits);
        }
        self.put(&waiting)?;
        Ok(Waiting::Waits)
    }

    /// Lets the aggregator's own certificate wait, for the key of this signing request.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(crate) fn ask_server(&self, request: Vec<u8>, now: Timestamp) -> Result<(), CaError> {
        if let Some(CertificateRequest::Server {
            request: before, ..
        }) = read(&self.path("server"))?
            && request_key(&before.0).ok() == request_key(&request).ok()
        {
            return Ok(());
        }
        self.put(&CertificateRequest::Server {
            request: Der(request),
            asked: now,
        })
    }

    /// The aggregator's own certificate waits no longer.
    pub(crate) fn forget_server(&self) -> Result<(), CaError> {
        remove(&self.path("server"))
    }

    /// Keeps what was signed for a member, and the request no longer.
    pub(crate) fn answered(
        &self,
        request: &CertificateRequest,
        certificate: &Certificate,
    ) -> Result<(), CaError> {
        let path = self.answer_path(&request.id());
        make_folder(&path)?;
        let pem = certificate.to_pem();
        let written = write_atomic(&path, pem.as_bytes(), Access::Everyone);
        written.map_err(|error| io_error(&path, error))?;
        self.discard(request)
    }

    /// The request waits no longer.
    pub(crate) fn discard(&self, request: &CertificateRequest) -> Result<(), CaError> {
        remove(&self.path(&request.id()))
    }

    /// Nothing waits for this name, nor was anything signed for it.
    pub(crate) fn forget(&self, name: &MemberName) -> Result<(), CaError> {
        for id in ids_of(name) {
            remove(&self.path(&id))?;
            remove(&self.answer_path(&id))?;
        }
        Ok(())
    }

    /// The name is invited anew: whoever used an earlier invitation has to ask again.
    pub(crate) fn invited(&self, name: &MemberName) -> Result<(), CaError> {
        let [join, _] = ids_of(name);
        remove(&self.path(&join))?;
        remove(&self.answer_path(&join))
    }

    /// Somebody has joined by the name.
    pub(crate) fn joined(&self, name: &MemberName) -> Result<(), CaError> {
        remove(&self.path(&ids_of(name)[0]))
    }

    /// A member has shown a certificate that is not due for another: it has what was signed for it.
    pub(crate) fn has(&self, peer: &Peer) -> Result<(), CaError> {
        for id in ids_of(&peer.name) {
            if self
                .answer(&id)?
                .is_some_and(|issued| issued.key == peer.key)
            {
                remove(&self.answer_path(&id))?;
            }
        }
        remove(&self.path(&ids_of(&peer.name)[1]))
    }

    pub(super) fn put(&self, request: &CertificateRequest) -> Result<(), CaError> {
        let path = self.path(&request.id());
        make_folder(&path)?;
        let text = serde_json::to_vec_pretty(request).expect("a request has text keys");
        let written = write_atomic(&path, &text, Access::Owner);
        written.map_err(|error| io_error(&path, error))?;
        match request.member() {
            Some(member) => {
                warn!(%member, kind = request.kind(), "a certificate waits for the authority's key")
            }
            None => warn!("the aggregator's own certificate waits for the authority's key"),
        }
        Ok(())
    }

    fn answer(&self, id: &str) -> Result<Option<Issued>, CaError> {
        let path = self.answer_path(id);
        let pem = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            pem => pem.map_err(|error| io_error(&path, error))?,
        };
        Ok(Some(Issued::read(Certificate::from_pem(&pem)?)?))
    }

    fn folder(&self) -> PathBuf {
        self.root.join("ca-requests")
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder().join(format!("{id}.json"))
    }

    fn answer_path(&self, id: &str) -> PathBuf {
        self.root.join("ca-answers").join(format!("{id}.pem"))
    }
}

/// The names of a member's requests: to join, and for another certificate.
fn ids_of(name: &MemberName) -> [String; 2] {
    [format!("join-{name}"), format!("renewal-{name}")]
}

/// When a certificate ends.
pub(crate) fn end_of(issued: &Issued) -> Timestamp {
    let seconds = u64::try_from(issued.not_after.unix_timestamp()).unwrap_or(0);
    Timestamp(seconds * 1000)
}

fn read(path: &Path) -> Result<Option<CertificateRequest>, CaError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| io_error(path, error))?,
    };
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|error| CaError::Request {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

fn make_folder(path: &Path) -> Result<(), CaError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| io_error(folder, error))
}
