//! Keys and certificates in files: PEM, written whole or not at all, keys for their owner alone.

use std::fs;
use std::path::Path;

use zeroize::Zeroizing;

use super::authority::CertificateAuthority;
use super::certificate::Certificate;
use super::error::PkiError;
use super::keys::TlsKeyPair;
use fedlora_common::files::{Access, write_atomic};

impl CertificateAuthority {
    /// Stores the authority as two files; the key's has mode 0600. There is none where something else
    /// holds the key.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), PkiError> {
        if let Some(pem) = self.key_pem() {
            save(key, pem.as_bytes(), Access::Owner)?;
        }
        save_certificate(certificate, self.certificate())
    }

    /// Reads an authority that [`CertificateAuthority::save`] stored.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Exposed`], and those of
    /// [`CertificateAuthority::from_pem`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let certificate = fs::read_to_string(certificate).map_err(at(certificate))?;
        Self::from_pem(&certificate, &read_key(key)?)
    }
}

impl TlsKeyPair {
    /// Stores the private key, mode 0600.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn save(&self, path: &Path) -> Result<(), PkiError> {
        save(path, self.to_pem().as_bytes(), Access::Owner)
    }

    /// Reads a key that [`TlsKeyPair::save`] stored.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Exposed`] or [`PkiError::Key`].
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        Self::from_pem(&read_key(path)?)
    }
}

/// Stores a certificate as PEM.
///
/// # Errors
/// [`PkiError::File`].
pub fn save_certificate(path: &Path, certificate: &Certificate) -> Result<(), PkiError> {
    save(path, certificate.to_pem().as_bytes(), Access::Everyone)
}

/// Reads a certificate from a PEM file.
///
/// # Errors
/// [`PkiError::File`] or [`PkiError::Certificate`].
pub fn load_certificate(path: &Path) -> Result<Certificate, PkiError> {
    Certificate::from_pem(&fs::read_to_string(path).map_err(at(path))?)
}

fn save(path: &Path, bytes: &[u8], access: Access) -> Result<(), PkiError> {
    write_atomic(path, bytes, access).map_err(at(path))
}

/// Reads a key file, or one with a passphrase, unless every user of the machine may. A group may read
/// it: it can be how the operator hands the key to the service.
///
/// # Errors
/// [`PkiError::File`] or [`PkiError::Exposed`].
pub fn read_key(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(at(path))?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(PkiError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
    }
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> PkiError + use<> {
    let path = path.to_owned();
    move |source| PkiError::File { path, source }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn an_authority_and_a_key_are_stored_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("ca.pem"), dir.path().join("ca.key"));
        let now = OffsetDateTime::UNIX_EPOCH;
        let authority =
            CertificateAuthority::create("demo", now, 30, &mut fedlora_protocol::crypto::os_rng())
                .unwrap();
        authority.save(&certificate, &key).unwrap();
        let read = CertificateAuthority::load(&certificate, &key).unwrap();
        assert_eq!(read.fingerprint(), authority.fingerprint());
        assert_eq!(
            &load_certificate(&certificate).unwrap(),
            authority.certificate()
        );

        let tls = TlsKeyPair::generate().unwrap();
        tls.save(&key).unwrap();
        assert_eq!(TlsKeyPair::load(&key).unwrap().digest(), tls.digest());
        assert!(matches!(
            CertificateAuthority::load(&certificate, &key),
            Err(PkiError::OtherKey { .. })
        ));
        assert!(matches!(
            TlsKeyPair::load(&certificate),
            Err(PkiError::Exposed { .. })
        ));
        assert!(matches!(
            load_certificate(&dir.path().join("none")),
            Err(PkiError::File { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_everyone_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls.key");
        TlsKeyPair::generate().unwrap().save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let error = TlsKeyPair::load(&path).unwrap_err();
        assert!(error.to_string().contains("604"), "{error}");
    }
}
