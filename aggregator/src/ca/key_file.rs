//! `ca.key`: sealing it by a passphrase, unsealing it, changing the passphrase. The file is replaced as a
//! whole: whoever is interrupted leaves the former one.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use fedlora_common::files::{Access, TEMPORARY, beside, lock, write_atomic};
use fedlora_protocol::crypto::os_rng;
use fedlora_transport::CertificateAuthority;
use fedlora_transport::pki::{AuthorityCertificate, Passphrase, is_sealed, seal};
use zeroize::Zeroizing;

use super::{CERTIFICATE_FILE, CaError, KEY_FILE, io_error, open_key, read, server_certificate};

/// The key of an operator's directory, while nobody else changes it.
#[derive(Debug)]
pub struct KeyFile<'a> {
    root: &'a Path,
    certificate: AuthorityCertificate,
    _lock: File,
}

impl<'a> KeyFile<'a> {
    /// Takes hold of the key in the operator's directory `root`. Removes what an interrupted change has
    /// left beside it: that may be the key in the clear.
    ///
    /// # Errors
    /// [`CaError`] naming the file.
    pub fn hold(root: &'a Path) -> Result<Self, CaError> {
        let path = root.join("ca.lock");
        let lock = lock(&path).map_err(|error| io_error(&path, error))?;
        let path = root.join(KEY_FILE);
        let leftover = beside(&path, TEMPORARY).map_err(|error| io_error(&path, error))?;
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error(&leftover, error));
            }
            _ => {}
        }
        let certificate = AuthorityCertificate::from_pem(&read(&root.join(CERTIFICATE_FILE))?)?;
        Ok(Self {
            root,
            certificate,
            _lock: lock,
        })
    }

    /// Whether the key is sealed.
    ///
    /// # Errors
    /// [`CaError::Io`].
    pub fn is_sealed(&self) -> Result<bool, CaError> {
        Ok(is_sealed(&self.text()?))
    }

    /// The error of sealing a key that is sealed.
    pub fn already_sealed(&self) -> CaError {
        let path = self.root.join(KEY_FILE);
        CaError::AlreadySealed { path }
    }

    /// The error of opening a key that is not sealed.
    pub fn not_sealed(&self) -> CaError {
        let path = self.root.join(KEY_FILE);
        CaError::NotSealed { path }
    }

    /// Checks that the passphrase opens the key.
    ///
    /// # Errors
    /// As [`unseal`](Self::unseal).
    pub fn check_opens(&self, passphrase: &Passphrase) -> Result<(), CaError> {
        self.opened(passphrase).map(|_| ())
    }

    /// Seals the key.
    ///
    /// # Errors
    /// [`CaError::AlreadySealed`], and what cannot be read or written.
    pub fn seal(&self, passphrase: &Passphrase) -> Result<(), CaError> {
        let key = self.text()?;
        match is_sealed(&key) {
            true => Err(self.already_sealed()),
            false => self.write_sealed(&key, passphrase),
        }
    }

    /// Stores the key in the clear again, and removes the certificate and key that the aggregator showed
    /// meanwhile.
    ///
    /// # Errors
    /// [`CaError::NotSealed`], [`CaError::WrongPassphrase`], and what cannot be read or written.
    pub fn unseal(&self, passphrase: &Passphrase) -> Result<(), CaError> {
        let key = self.opened(passphrase)?;
        self.write(key.as_bytes())?;
        // The aggregator issues its own again, for keys that are nowhere on disk.
        server_certificate::discard(self.root)
    }

    /// Seals the key by another passphrase.
    ///
    /// # Errors
    /// As [`unseal`](Self::unseal).
    pub fn change(&self, former: &Passphrase, next: &Passphrase) -> Result<(), CaError> {
        let key = self.opened(former)?;
        self.write_sealed(&key, next)
    }

    fn opened(&self, passphrase: &Passphrase) -> Result<Zeroizing<String>, CaError> {
        let (path, text) = (self.root.join(KEY_FILE), self.text()?);
        if !is_sealed(&text) {
            return Err(self.not_sealed());
        }
        let key = open_key(&path, &text, passphrase)?;
        self.check(&key)?;
        Ok(key)
    }

    fn write_sealed(&self, key: &str, passphrase: &Passphrase) -> Result<(), CaError> {
        self.check(key)?;
        let sealed = seal(key, passphrase, &mut os_rng())?;
        // Before there is no other: what is written opens.
        self.check(&open_key(&self.root.join(KEY_FILE), &sealed, passphrase)?)?;
        self.write(sealed.as_bytes())
    }

    /// Checks that it is the authority's.
    fn check(&self, key: &str) -> Result<(), CaError> {
        CertificateAuthority::with_key_pem(self.certificate.clone(), key)?;
        Ok(())
    }

    fn text(&self) -> Result<Zeroizing<String>, CaError> {
        read(&self.root.join(KEY_FILE))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), CaError> {
        let path = self.root.join(KEY_FILE);
        write_atomic(&path, bytes, Access::Owner).map_err(|error| io_error(&path, error))
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::super::{Authority, CustodyKind};
    use super::*;
    use crate::ca::passphrase::PassphraseSource;
    use crate::config::AggregatorConfig;
    use crate::directory::Directory;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::chosen(Zeroizing::new(text.to_owned())).unwrap()
    }

    fn init(root: &Path) {
        let config = AggregatorConfig::new("test", "127.0.0.1:0".parse().unwrap()).unwrap();
        Directory::init(root, &config, OffsetDateTime::now_utc()).unwrap();
    }

    #[test]
    fn a_key_is_sealed_used_changed_and_unsealed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        init(root);
        let clear = fs::read_to_string(root.join(KEY_FILE)).unwrap();
        let (one, two) = (
            passphrase("correct horse battery"),
            passphrase("staple wrong horse"),
        );
        let key = KeyFile::hold(root).unwrap();
        assert!(!key.is_sealed().unwrap());
        assert!(matches!(key.unseal(&one), Err(CaError::NotSealed { .. })));
        key.seal(&one).unwrap();
        assert!(matches!(key.seal(&one), Err(CaError::AlreadySealed { .. })));
        let sealed = fs::read_to_string(root.join(KEY_FILE)).unwrap();
        let secret = clear.lines().nth(1).unwrap();
        assert!(is_sealed(&sealed) && !sealed.contains(secret));

        let open = || Authority::open(root, None).unwrap();
        assert_eq!(open().custody(), CustodyKind::Sealed);
        assert!(matches!(open().sign(|_| Ok(())), Err(CaError::Locked)));
        let with =
            |given: &Passphrase| open().with_passphrase(&PassphraseSource::Given(given.clone()));
        with(&one).unwrap().sign(|_| Ok(())).unwrap();
        let error = with(&two).unwrap_err();
        assert!(matches!(error, CaError::WrongPassphrase { .. }), "{error}");

        assert!(key.change(&two, &one).is_err());
        assert_eq!(fs::read_to_string(root.join(KEY_FILE)).unwrap(), sealed);
        key.change(&one, &two).unwrap();
        assert!(with(&one).is_err() && with(&two).is_ok());
        // One that was locked goes on with a key that is there again.
        let locked = open();
        key.unseal(&two).unwrap();
        locked.sign(|_| Ok(())).unwrap();
        assert_eq!(open().custody(), CustodyKind::Clear);
    }

    #[test]
    fn an_interrupted_change_leaves_the_former_key_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        init(root);
        let (path, beside) = (root.join(KEY_FILE), root.join("ca.key.tmp"));
        let clear = fs::read(&path).unwrap();
        let given = passphrase("correct horse battery");
        let held = KeyFile::hold(root).unwrap();
        // The new file cannot be written.
        fs::create_dir(&beside).unwrap();
        assert!(matches!(held.seal(&given), Err(CaError::Io { .. })));
        assert_eq!(fs::read(&path).unwrap(), clear);
        fs::remove_dir(&beside).unwrap();
        held.seal(&given).unwrap();
        let sealed = fs::read(&path).unwrap();
        drop(held);
        // A crash has left the clear key beside the sealed one: it goes as soon as anybody looks.
        fs::write(&beside, &clear).unwrap();
        let held = KeyFile::hold(root).unwrap();
        assert!(!beside.exists());
        assert_eq!(fs::read(&path).unwrap(), sealed);
        drop(held);
        // Another authority's key is not sealed in this one's place.
        let other = tempfile::tempdir().unwrap();
        init(other.path());
        fs::copy(other.path().join(KEY_FILE), &path).unwrap();
        assert!(KeyFile::hold(root).unwrap().seal(&given).is_err());
    }
}
