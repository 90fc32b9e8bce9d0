//! The aggregator's side: its authority's key is taken apart, what waits for it is written out, and what
//! was signed is taken.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fedlora_common::clock::Timestamp;
use fedlora_common::files::{Access, create_private_folder, sync_parent, write_atomic};
use fedlora_transport::pki::{Issued, Passphrase, PkiError};
use fedlora_transport::{Certificate, Peer, check_member_certificate, check_server_certificate};

use super::CarriedError;
use super::carried::{Carried, Certificates, RemovedMember, Requests, check_authority};
use super::folder::{About, AuthorityFolder, IssuedEntry};
use crate::ca::key_file::KeyFile;
use crate::ca::requests::{self, CertificateRequest};
use crate::ca::server_certificate::Kept;
use crate::ca::sign::{Handled, SignError, SignedCertificate, keep, of, prepare, still_wanted};
use crate::ca::{CERTIFICATE_FILE, CaError, KEY_FILE, io_error, read};
use crate::directory::Opened;
use crate::registry::{Registry, RegistryError};

/// Takes the key out of the operator's directory into a new folder, which is then carried to another
/// machine. Nobody serves the directory meanwhile. The key has to be sealed, by this passphrase.
///
/// # Errors
/// [`CaError::NotSealed`], [`CaError::WrongPassphrase`], [`CarriedError::Taken`] for a folder that is
/// there, and what cannot be read or written. The key is removed last.
pub fn detach(
    registry: &Registry,
    opened: &Opened,
    passphrase: &Passphrase,
    to: &Path,
) -> Result<(), SignError> {
    let root = registry.directory().root();
    let key = KeyFile::hold(root)?;
    key.check_opens(passphrase)?;
    if to.exists() {
        let path = to.to_owned();
        return Err(CaError::from(CarriedError::Taken { path }).into());
    }
    let members = registry.members()?.into_iter().map(|one| IssuedEntry {
        member: Some(one.name),
        identity: Some(one.identity),
        key: one.certificate_key,
        until: None,
        revoked: None,
    });
    let mut issued: Vec<_> = members.collect();
    if let Some(own) = Kept::read(root)? {
        issued.push(IssuedEntry {
            member: None,
            identity: None,
            key: own.key,
            until: Some(own.end),
            revoked: None,
        });
    }
    create_private_folder(to).map_err(|error| io_error(to, error))?;
    for (name, access) in [
        (CERTIFICATE_FILE, Access::Everyone),
        (KEY_FILE, Access::Owner),
    ] {
        let path = to.join(name);
        let text = read(&root.join(name))?;
        let written = write_atomic(&path, text.as_bytes(), access);
        written.map_err(|error| io_error(&path, error))?;
    }
    let about = About {
        federation: opened.config.federation.clone(),
        aggregator: opened.identity.public(),
    };
    AuthorityFolder::make(to, &about, &issued)?;
    // The copy is whole; from here on the directory does without the key.
    set_apart(root)?;
    let path = root.join(KEY_FILE);
    fs::remove_file(&path)
        .and_then(|()| sync_parent(&path))
        .map_err(|error| io_error(&path, error))?;
    Ok(())
}

/// Notes in `aggregator.toml` that the key is apart. What else stands there stays, comments too.
fn set_apart(root: &Path) -> Result<(), CaError> {
    let path = root.join("aggregator.toml");
    let text = fs::read_to_string(&path).map_err(|error| io_error(&path, error))?;
    let section = text.lines().position(|line| line.trim() == "[ca]");
    let text = match section {
        None => format!("{}\n\n[ca]\napart = true\n", text.trim_end()),
        Some(place) => {
            let mut lines: Vec<_> = text.lines().collect();
            lines.insert(place + 1, "apart = true");
            lines.join("\n") + "\n"
        }
    };
    let written = write_atomic(&path, text.as_bytes(), Access::Everyone);
    written.map_err(|error| io_error(&path, error))
}

/// Writes what waits for the key into a file, signed by the aggregator, and who was removed. A request of
/// somebody who is not wanted any more is dropped. Gives what was written.
///
/// # Errors
/// A file that cannot be read or written.
pub fn export(
    registry: &Registry,
    opened: &Opened,
    now: Timestamp,
    to: &Path,
) -> Result<Requests, SignError> {
    let root = registry.directory().root();
    let waiting = requests::Requests::of(root);
    let mut wanted = Vec::new();
    for request in prepare(root, &opened.authority, now)? {
        match still_wanted(&request, registry)? {
            true => wanted.push(request),
            false => waiting.discard(&request)?,
        }
    }
    let file = Requests {
        authority: opened.authority.fingerprint().to_string(),
        exported: now,
        requests: wanted,
        removed: removed(registry)?,
    };
    file.write(to, &opened.identity)?;
    Ok(file)
}

/// Whoever was removed, with the keys of that time, unless they are a member's again.
fn removed(registry: &Registry) -> Result<Vec<RemovedMember>, RegistryError> {
    let members = registry.members()?;
    let keys: BTreeSet<_> = members.iter().map(|one| one.certificate_key).collect();
    let removed = registry.removed()?.into_iter();
    let gone = removed.filter(|one| !keys.contains(&one.certificate_key));
    Ok(gone
        .map(|one| RemovedMember {
            member: one.name,
            key: one.certificate_key,
        })
        .collect())
}

/// Takes what was signed: each certificate that this directory's authority has issued for the name and the
/// key that still wait here. Of each it says what became of it; nothing else is taken.
///
/// # Errors
/// A file that is not one of certificates, or of another authority; one that cannot be read or written.
pub fn take(
    registry: &Registry,
    opened: &Opened,
    now: Timestamp,
    from: &Path,
) -> Result<Vec<Handled>, SignError> {
    let root = registry.directory().root();
    let file = Certificates::read(from)?;
    let own = opened.authority.fingerprint().to_string();
    check_authority(from, &file.authority, &own).map_err(CaError::from)?;
    let waiting = requests::Requests::of(root);
    let mut handled = Vec::new();
    for carried in &file.certificates {
        let Some(request) = waiting.waiting(&carried.request)? else {
            // It was taken before, or withdrawn.
            continue;
        };
        if !still_wanted(&request, registry)? {
            waiting.discard(&request)?;
            let reason = "not a member, nor invited any more".to_owned();
            handled.push(of(&request, Err(reason)));
            continue;
        }
        let outcome = match checked(carried, &request, opened.authority.certificate(), now) {
            Ok(issued) => {
                keep(root, &waiting, &request, &issued)?;
                Ok(SignedCertificate {
                    key: issued.key,
                    not_after: issued.not_after,
                })
            }
            Err(error) => Err(error.to_string()),
        };
        handled.push(of(&request, outcome));
    }
    Ok(handled)
}

/// Checks that a certificate is the authority's, valid now, and answers the request.
fn checked(
    carried: &Carried,
    request: &CertificateRequest,
    authority: &Certificate,
    now: Timestamp,
) -> Result<Issued, PkiError> {
    let refused = |reason: String| PkiError::Certificate { reason };
    let certificate = Certificate::from_pem(&carried.certificate)?;
    let verified = match request.member() {
        None => check_server_certificate(&certificate, authority, now),
        Some(_) => check_member_certificate(&certificate, authority, now),
    };
    verified.map_err(|error| refused(error.to_string()))?;
    if let Some(name) = request.member()
        && Peer::from_certificate(&certificate)?.name != *name
    {
        return Err(refused("it is another member's".to_owned()));
    }
    let issued = Issued::read(certificate)?;
    match issued.key == request.key()? {
        true => Ok(issued),
        false => Err(refused("it is for another key than waits".to_owned())),
    }
}
