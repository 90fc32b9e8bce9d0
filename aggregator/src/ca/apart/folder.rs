//! The folder of an authority's key that was taken apart:
//!
//! ```text
//! authority.json   whose authority it is: the federation, and the aggregator that may ask
//! ca.pem ca.key    the authority; its key is sealed
//! issued.json      what was issued: names, keys, ends, and what is revoked
//! ```
//!
//! What was issued is noted before a certificate leaves the folder. Keys that are revoked get no certificate
//! any more, whoever asks for one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::lock;
use fedlora_protocol::crypto::sign::IdentityPublic;
use fedlora_protocol::ids::MemberName;
use fedlora_transport::pki::PkiError;
use serde::{Deserialize, Serialize};

use super::carried::{
    Carried, Certificates, RemovedMember, Requests, check_authority, read, write,
};
use super::{CarriedError, shown, who};
use crate::ca::passphrase::PassphraseSource;
use crate::ca::requests::{CertificateRequest, end_of};
use crate::ca::sign::{Handled, SignedCertificate, issue, of};
use crate::ca::{Authority, CaError, io_error};
use crate::clock::Clock;

/// The file that makes a folder one of an authority apart.
const ABOUT_FILE: &str = "authority.json";
/// The file of what was issued.
const ISSUED_FILE: &str = "issued.json";

/// Whose authority it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub(super) federation: String,
    /// Who signs requests.
    pub(super) aggregator: IdentityPublic,
}

/// A certificate that the authority has issued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuedEntry {
    /// The member; nothing for the aggregator's own.
    pub(super) member: Option<MemberName>,
    /// The member's identity key, where the authority knows it.
    pub(super) identity: Option<IdentityPublic>,
    /// The digest of the key in the certificate.
    pub(super) key: Digest,
    /// The end of its validity, where the authority knows it.
    pub(super) until: Option<Timestamp>,
    /// When the member was removed, as the authority learned it: its keys get no certificate from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked: Option<Timestamp>,
}

impl IssuedEntry {
    /// A key that was a member's before this authority noted what it issues.
    pub(super) fn never_issued(removed: &RemovedMember) -> Self {
        Self {
            member: Some(removed.member.clone()),
            identity: None,
            key: removed.key,
            until: None,
            revoked: None,
        }
    }

    fn is_of(&self, removed: &RemovedMember) -> bool {
        self.key == removed.key && self.member.as_ref() == Some(&removed.member)
    }
}

/// An authority's folder.
#[derive(Debug)]
pub struct AuthorityFolder {
    root: PathBuf,
    about: About,
    authority: Authority,
    issued: Vec<IssuedEntry>,
}

/// What the person at the authority's key has decided.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Members that have other keys by intent.
    pub other_keys: BTreeSet<MemberName>,
    /// Requests that are left out, by the member's name.
    pub left_out: BTreeSet<MemberName>,
}

/// A request, and what is to be said of it.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The request.
    pub request: &'a CertificateRequest,
    /// The digest of its key.
    pub key: Option<Digest>,
    /// Why it must not be signed.
    pub doubt: Option<Doubt>,
    /// Whether the key has a certificate of this authority already, for the same name.
    pub is_known: bool,
}

/// Why a request must not be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The name has a certificate for another key.
    OtherKeys {
        /// That key's digest.
        former: Digest,
    },
    /// The key, or the member's identity key, has a certificate under another name.
    OtherName {
        /// That name.
        name: String,
    },
    /// The keys were a member's that was removed.
    Revoked,
    /// The authority has issued no certificate for that name and key that could be renewed.
    Unknown,
    /// The request is malformed, or not proved.
    Request {
        /// What is wrong with it.
        reason: String,
    },
}

impl From<PkiError> for Doubt {
    fn from(error: PkiError) -> Self {
        Self::Request {
            reason: error.to_string(),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKeys { former } => {
                write!(f, "it has a certificate for another key, {}", shown(former))
            }
            Self::OtherName { name } => write!(f, "its keys have a certificate as {name}"),
            Self::Revoked => f.write_str("its keys are revoked: the member was removed"),
            Self::Unknown => f.write_str("there is no certificate for it that could be renewed"),
            Self::Request { reason } => f.write_str(reason),
        }
    }
}

impl AuthorityFolder {
    /// Whether a folder is one of an authority apart.
    pub fn is_one(root: &Path) -> bool {
        root.join(ABOUT_FILE).exists()
    }

    /// Writes what makes a folder with `ca.pem` and `ca.key` one of an authority apart.
    pub(super) fn make(root: &Path, about: &About, issued: &[IssuedEntry]) -> Result<(), CaError> {
        write(&root.join(ISSUED_FILE), &issued)?;
        // Last: a folder with it is whole.
        write(&root.join(ABOUT_FILE), about)
    }

    /// Opens a folder. Asks for no passphrase.
    ///
    /// # Errors
    /// [`CarriedError::NoFolder`], and what cannot be read.
    pub fn open(root: &Path) -> Result<Self, CaError> {
        if !Self::is_one(root) {
            return Err(CarriedError::NoFolder {
                path: root.to_owned(),
            }
            .into());
        }
        Ok(Self {
            about: read(&root.join(ABOUT_FILE), "what an authority is of")?,
            issued: read(&root.join(ISSUED_FILE), "certificates that were issued")?,
            authority: Authority::open(root, None)?,
            root: root.to_owned(),
        })
    }

    /// The federation's name.
    pub fn federation(&self) -> &str {
        &self.about.federation
    }

    /// The authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Reads requests that are carried here.
    ///
    /// # Errors
    /// A file that the aggregator has not signed so, or that is of another authority.
    pub fn requests(&self, path: &Path) -> Result<Requests, CaError> {
        let requests = Requests::read(path, &self.about.aggregator)?;
        let own = self.authority.fingerprint().to_string();
        check_authority(path, &requests.authority, &own)?;
        Ok(requests)
    }

    /// Revokes the keys of everybody whom the aggregator has removed. Gives who was not known to be so
    /// far; [`sign`](Self::sign) or [`keep`](Self::keep) notes it in the folder.
    pub fn take_removals(&mut self, requests: &Requests, now: Timestamp) -> Vec<RemovedMember> {
        let mut news = Vec::new();
        for removed in &requests.removed {
            let is_known = self.issued.iter().any(|one| one.is_of(removed));
            if !is_known {
                // Before all others: it is not the newest of its name.
                self.issued.insert(0, IssuedEntry::never_issued(removed));
            }
            news.extend(self.revoke_where(|one| one.is_of(removed), now));
        }
        news
    }

    /// Revokes all keys of a member, whatever the aggregator says of it. Gives those that were not so far.
    ///
    /// # Errors
    /// [`CarriedError::NeverIssued`] for a name that this authority has given no certificate.
    pub fn revoke(
        &mut self,
        member: &MemberName,
        now: Timestamp,
    ) -> Result<BTreeSet<RemovedMember>, CarriedError> {
        let is_own = |one: &IssuedEntry| one.member.as_ref() == Some(member);
        if !self.issued.iter().any(is_own) {
            let member = member.clone();
            return Err(CarriedError::NeverIssued { member });
        }
        Ok(self.revoke_where(is_own, now))
    }

    /// Revokes members' keys, each with all certificates that it has had. Gives those that were not.
    fn revoke_where(
        &mut self,
        which: impl Fn(&IssuedEntry) -> bool,
        now: Timestamp,
    ) -> BTreeSet<RemovedMember> {
        let found = self.issued.iter_mut();
        let found = found.filter(|one| one.revoked.is_none() && which(one));
        let revoke = |entry: &mut IssuedEntry| {
            entry.revoked = Some(now);
            let (member, key) = (entry.member.clone()?, entry.key);
            Some(RemovedMember { member, key })
        };
        found.filter_map(revoke).collect()
    }

    /// Notes what was revoked, where nothing is signed.
    ///
    /// # Errors
    /// [`CaError::Io`].
    pub fn keep(self) -> Result<(), CaError> {
        let path = self.root.join("ca.lock");
        let _lock = lock(&path).map_err(|error| io_error(&path, error))?;
        write(&self.root.join(ISSUED_FILE), &self.issued)
    }

    /// Judges each request that is not left out, by what was issued before.
    pub fn judge<'a>(&self, requests: &'a Requests, allowed: &Allowed) -> Vec<Judged<'a>> {
        let wanted = requests.requests.iter().filter(|one| {
            let member = one.member();
            member.is_none_or(|name| !allowed.left_out.contains(name))
        });
        let mut judged = Vec::new();
        let mut asked: Vec<IssuedEntry> = Vec::new();
        for request in wanted {
            let one = self.judge_one(request, allowed, &asked);
            asked.extend(one.key.map(|key| entry_of(request, key, None)));
            judged.push(one);
        }
        judged
    }

    fn judge_one<'a>(
        &self,
        request: &'a CertificateRequest,
        allowed: &Allowed,
        asked: &[IssuedEntry],
    ) -> Judged<'a> {
        let refused = |key, doubt| Judged {
            request,
            key,
            doubt: Some(doubt),
            is_known: false,
        };
        let key = match request.key() {
            Ok(key) => key,
            Err(error) => return refused(None, error.into()),
        };
        let asks = entry_of(request, key, None);
        let all = || self.issued.iter().chain(asked);
        let same_keys = |one: &&IssuedEntry| {
            one.key == key || (one.identity.is_some() && one.identity == asks.identity)
        };
        if all().filter(same_keys).any(|one| one.revoked.is_some()) {
            return refused(Some(key), Doubt::Revoked);
        }
        if let Some(other) = all()
            .filter(same_keys)
            .find(|one| one.member != asks.member)
        {
            let name = who(other.member.as_ref());
            return refused(Some(key), Doubt::OtherName { name });
        }
        let newest = all().rfind(|one| one.member == asks.member);
        let is_known = newest.is_some_and(|one| one.key == key);
        let doubt = match (request, newest) {
            (CertificateRequest::Renewal { .. }, _) if !is_known => Some(Doubt::Unknown),
            (CertificateRequest::Join { name, .. }, Some(former))
                if !is_known && !allowed.other_keys.contains(name) =>
            {
                Some(Doubt::OtherKeys { former: former.key })
            }
            // The aggregator makes itself another key where it has lost one; it is shown.
            _ => None,
        };
        Judged {
            request,
            key: Some(key),
            doubt,
            is_known,
        }
    }

    /// Signs what was judged, all of it or nothing, and notes it. Gives what is to be carried back.
    ///
    /// # Errors
    /// [`CarriedError::Refused`] for a request that must not be signed; a passphrase that does not open
    /// the key, or a file that cannot be written.
    pub fn sign(
        mut self,
        judged: &[Judged<'_>],
        passphrase: &PassphraseSource,
        clock: &dyn Clock,
    ) -> Result<(Certificates, Vec<Handled>), CaError> {
        let path = self.root.join("ca.lock");
        let _lock = lock(&path).map_err(|error| io_error(&path, error))?;
        check(judged)?;
        let authority = self.authority.with_passphrase(passphrase)?;
        let signed = authority.sign(|key| {
            let sign = |one: &Judged<'_>| issue(one.request, key, clock);
            Ok(judged.iter().map(sign).collect::<Vec<_>>())
        })?;
        let mut carried = Vec::new();
        let mut handled = Vec::new();
        for (one, issued) in judged.iter().zip(signed) {
            let request = one.request;
            let issued = issued.map_err(|error| refusal(request, error.into()))?;
            let until = Some(end_of(&issued));
            self.issued.push(entry_of(request, issued.key, until));
            carried.push(Carried {
                request: request.id(),
                certificate: issued.pem(),
            });
            let signed = SignedCertificate {
                key: issued.key,
                not_after: issued.not_after,
            };
            handled.push(of(request, Ok(signed)));
        }
        write(&self.root.join(ISSUED_FILE), &self.issued)?;
        let certificates = Certificates {
            authority: authority.fingerprint().to_string(),
            certificates: carried,
        };
        Ok((certificates, handled))
    }
}

/// Checks that there is something to sign, and that all of it may be signed.
///
/// # Errors
/// [`CarriedError::NothingSigned`] or [`CarriedError::Refused`].
pub fn check(judged: &[Judged<'_>]) -> Result<(), CarriedError> {
    if judged.is_empty() {
        return Err(CarriedError::NothingSigned);
    }
    for one in judged {
        if let Some(doubt) = &one.doubt {
            return Err(refusal(one.request, doubt.clone()));
        }
    }
    Ok(())
}

fn refusal(request: &CertificateRequest, doubt: Doubt) -> CarriedError {
    let who = who(request.member());
    CarriedError::Refused { who, doubt }
}

fn entry_of(request: &CertificateRequest, key: Digest, until: Option<Timestamp>) -> IssuedEntry {
    let identity = match request {
        CertificateRequest::Join { identity, .. } => Some(*identity),
        CertificateRequest::Server { .. } | CertificateRequest::Renewal { .. } => None,
    };
    IssuedEntry {
        member: request.member().cloned(),
        identity,
        key,
        until,
        revoked: None,
    }
}
