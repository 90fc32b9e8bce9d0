//! The aggregator's own certificate and key in files: what it shows where the authority's key is not at
//! hand when it starts. Where that is, it issues itself a new one, for a key that is nowhere on disk.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fedlora_common::clock::Timestamp;
use fedlora_common::digest::Digest;
use fedlora_common::files::{Access, write_atomic};
use fedlora_transport::pki::{Issued, load_certificate};
use fedlora_transport::{Certificate, Credentials, TlsKeyPair};

use super::requests::{Requests, end_of};
use super::{CaError, io_error};

/// How long the certificate is valid. It is asked for again after half of that.
pub(crate) const KEPT_DAYS: u32 = 90;

/// The aggregator's own certificate, as kept in its directory.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) credentials: Credentials,
    /// The digest of its key.
    pub(crate) key: Digest,
    pub(crate) end: Timestamp,
}

impl Kept {
    /// Reads it; nothing where there is none for the key that is kept.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>, CaError> {
        let (path, key_path) = (certificate_path(root), key_path(root));
        if !path.exists() || !key_path.exists() {
            return Ok(None);
        }
        let key = TlsKeyPair::load(&key_path)?;
        let issued = Issued::read(load_certificate(&path)?)?;
        if issued.key != key.digest() {
            return Ok(None);
        }
        let end = end_of(&issued);
        Ok(Some(Self {
            credentials: Credentials::new(issued.certificate, &key)?,
            key: issued.key,
            end,
        }))
    }

    /// When another is asked for.
    pub(crate) fn due(&self) -> Timestamp {
        let half = Duration::from_secs(u64::from(KEPT_DAYS) * 86_400 / 2);
        Timestamp(self.end.0.saturating_sub(half.as_millis() as u64))
    }
}

/// Asks for another certificate, where there is none or it is due. Makes the key where that is missing.
///
/// # Errors
/// A file that cannot be read or written.
pub(crate) fn ask_if_due(root: &Path, now: Timestamp) -> Result<(), CaError> {
    // One that cannot be read is replaced.
    let kept = Kept::read(root).ok().flatten();
    if kept.is_some_and(|kept| now < kept.due()) {
        return Ok(());
    }
    let path = key_path(root);
    let key = match path.exists() {
        true => TlsKeyPair::load(&path)?,
        false => {
            let key = TlsKeyPair::generate()?;
            key.save(&path)?;
            key
        }
    };
    Requests::of(root).ask_server(key.signing_request()?, now)
}

/// Keeps a certificate that was signed.
///
/// # Errors
/// [`CaError::Io`].
pub(crate) fn keep(root: &Path, certificate: &Certificate) -> Result<(), CaError> {
    let (path, pem) = (certificate_path(root), certificate.to_pem());
    let written = write_atomic(&path, pem.as_bytes(), Access::Everyone);
    written.map_err(|error| io_error(&path, error))
}

/// Removes certificate and key, and what waits for them: the authority's key is at hand again.
///
/// # Errors
/// [`CaError::Io`].
pub(crate) fn discard(root: &Path) -> Result<(), CaError> {
    for path in [certificate_path(root), key_path(root)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error(&path, error));
            }
            _ => {}
        }
    }
    Requests::of(root).forget_server()
}

fn certificate_path(root: &Path) -> PathBuf {
    root.join("server.pem")
}

fn key_path(root: &Path) -> PathBuf {
    root.join("server.key")
}
