//! The federation's certificate authority, as the operator keeps it: who can use its key, and what waits
//! for it.
//!
//! | file | owns |
//! |---|---|
//! | `apart/` | the key in a folder of its own, on another machine: what is carried there and back |
//! | `passphrase.rs` | where a passphrase comes from |
//! | `key_file.rs` | sealing `ca.key`, unsealing it, changing its passphrase |
//! | `requests.rs` | certificates that wait for the key, and those that were signed |
//! | `server_certificate.rs` | the aggregator's own certificate, where it cannot issue one when it starts |
//! | `sign.rs` | signing what waits |
//! | `token.rs` | a PKCS #11 token that holds the key (feature `pkcs11`) |
//!
//! The key in the clear is in memory as long as the process runs. A sealed key is opened for each
//! signature, and wiped after it; what serves without the passphrase lets requests wait.

pub mod apart;
pub mod key_file;
pub mod passphrase;
pub mod requests;
pub(crate) mod server_certificate;
pub mod sign;
#[cfg(feature = "pkcs11")]
mod token;
#[cfg(not(feature = "pkcs11"))]
#[path = "token_absent.rs"]
mod token;
mod token_error;

use std::io;
use std::path::{Path, PathBuf};

use fedlora_protocol::crypto::os_rng;
use fedlora_transport::pki::{AuthorityCertificate, PkiError, is_sealed, unseal};
use fedlora_transport::{CaFingerprint, Certificate, CertificateAuthority};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::config::{CaConfig, Pkcs11Config};
use crate::remedy::Remedy;
use passphrase::{PassphraseFault, PassphraseSource};
use token::TokenKey;
pub use token_error::TokenError;

/// The name of the key's file.
pub(crate) const KEY_FILE: &str = "ca.key";
/// The name of the certificate's file.
pub(crate) const CERTIFICATE_FILE: &str = "ca.pem";

/// The federation's certificate authority: its certificate, and the way to its key.
#[derive(Debug)]
pub struct Authority {
    certificate: AuthorityCertificate,
    custody: Custody,
}

/// How the key is kept.
#[derive(Debug)]
enum Custody {
    /// In the clear.
    Clear(Box<CertificateAuthority>),
    /// In a file that a passphrase seals.
    Sealed {
        path: PathBuf,
        passphrase: Option<PassphraseSource>,
    },
    /// In a token, which signs.
    Token(Pkcs11Config),
    /// In a folder on another machine.
    Apart,
}

/// How the authority's key is kept, for people and scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CustodyKind {
    /// In a file, in the clear.
    Clear,
    /// In a file that a passphrase seals.
    Sealed,
    /// In a PKCS #11 token.
    Token,
    /// In a folder of its own, on another machine.
    Apart,
}

impl CustodyKind {
    /// The kind in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Clear => "in the clear: whoever reads ca.key has it",
            Self::Sealed => "sealed by a passphrase",
            Self::Token => "in a PKCS #11 token",
            Self::Apart => "apart from this directory, on another machine",
        }
    }
}

impl Authority {
    /// Makes the authority of a new federation with the key that a token holds, which signs its own
    /// certificate. It is valid for `days` from `not_before`.
    ///
    /// # Errors
    /// [`CaError::Token`], or what [`CertificateAuthority::create`] refuses.
    pub(crate) fn create_in_token(
        config: &Pkcs11Config,
        federation: &str,
        not_before: OffsetDateTime,
        days: u32,
    ) -> Result<CertificateAuthority, CaError> {
        let key = Box::new(TokenKey::find(config)?);
        let rng = &mut os_rng();
        Ok(CertificateAuthority::create_remote(
            key, federation, not_before, days, rng,
        )?)
    }

    /// Reads the authority in the operator's directory `root`, whose configuration says where the key is
    /// if not in a file. Asks for no passphrase, and no token.
    ///
    /// # Errors
    /// [`CaError`] naming the file that is missing or wrong.
    pub fn open(root: &Path, config: Option<&CaConfig>) -> Result<Self, CaError> {
        let path = root.join(CERTIFICATE_FILE);
        let certificate = AuthorityCertificate::from_pem(&read(&path)?)?;
        let elsewhere = match config {
            Some(CaConfig { apart: true, .. }) => Some(Custody::Apart),
            Some(CaConfig { pkcs11, .. }) => pkcs11.clone().map(Custody::Token),
            None => None,
        };
        if let Some(custody) = elsewhere {
            return Ok(Self {
                certificate,
                custody,
            });
        }
        let path = root.join(KEY_FILE);
        let key = read(&path)?;
        let custody = match is_sealed(&key) {
            true => Custody::Sealed {
                path,
                passphrase: None,
            },
            false => {
                let authority = CertificateAuthority::with_key_pem(certificate.clone(), &key)?;
                Custody::Clear(Box::new(authority))
            }
        };
        Ok(Self {
            certificate,
            custody,
        })
    }

    /// The same authority with the passphrase of its key, where that is sealed. The key is opened once,
    /// to see that the passphrase is the right one.
    ///
    /// # Errors
    /// [`CaError::WrongPassphrase`]; a file that gives no passphrase, or a key that cannot be used.
    pub fn with_passphrase(mut self, source: &PassphraseSource) -> Result<Self, CaError> {
        if let Custody::Sealed { passphrase, .. } = &mut self.custody {
            *passphrase = Some(source.clone());
            self.sign(|_| Ok(()))?;
        }
        Ok(self)
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &Certificate {
        self.certificate.certificate()
    }

    /// The end of the authority's validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.certificate.not_after()
    }

    /// The fingerprint that join tokens carry.
    pub fn fingerprint(&self) -> CaFingerprint {
        self.certificate.fingerprint()
    }

    /// How the key is kept.
    pub fn custody(&self) -> CustodyKind {
        match self.custody {
            Custody::Clear(_) => CustodyKind::Clear,
            Custody::Sealed { .. } => CustodyKind::Sealed,
            Custody::Token(_) => CustodyKind::Token,
            Custody::Apart => CustodyKind::Apart,
        }
    }

    /// Whether the key is not at hand: it is sealed, and no passphrase was given, or elsewhere.
    ///
    /// # Errors
    /// [`CaError::Io`].
    pub fn is_locked(&self) -> Result<bool, CaError> {
        match &self.custody {
            Custody::Sealed {
                path,
                passphrase: None,
            } => Ok(is_sealed(&read(path)?)),
            Custody::Apart => Ok(true),
            Custody::Clear(_) | Custody::Sealed { .. } | Custody::Token(_) => Ok(false),
        }
    }

    /// Lets the authority issue or sign something. A sealed key is opened for that, which takes longer than
    /// the signature, and wiped afterwards.
    ///
    /// # Errors
    /// [`CaError::Locked`] where the key is sealed, and no passphrase was given, [`CaError::Apart`] where
    /// it is on another machine; what `work` refuses.
    pub fn sign<T>(
        &self,
        work: impl FnOnce(&CertificateAuthority) -> Result<T, PkiError>,
    ) -> Result<T, CaError> {
        match &self.custody {
            Custody::Clear(authority) => Ok(work(authority)?),
            Custody::Apart => Err(CaError::Apart),
            Custody::Token(config) => {
                let key = Box::new(TokenKey::find(config)?);
                let authority = CertificateAuthority::remote(self.certificate.clone(), key)?;
                Ok(work(&authority)?)
            }
            Custody::Sealed { path, passphrase } => {
                let text = read(path)?;
                let key = match (is_sealed(&text), passphrase) {
                    // It was unsealed meanwhile.
                    (false, _) => text,
                    (true, None) => return Err(CaError::Locked),
                    (true, Some(source)) => open_key(path, &text, &source.open()?)?,
                };
                let certificate = self.certificate.clone();
                let authority = CertificateAuthority::with_key_pem(certificate, &key)?;
                drop(key);
                Ok(work(&authority)?)
            }
        }
    }
}

/// Opens the text of a sealed key, and names its file where that fails.
fn open_key(
    path: &Path,
    sealed: &str,
    passphrase: &fedlora_transport::pki::Passphrase,
) -> Result<Zeroizing<String>, CaError> {
    unseal(sealed, passphrase).map_err(|error| match error {
        PkiError::WrongPassphrase => CaError::WrongPassphrase {
            path: path.to_owned(),
        },
        error => error.into(),
    })
}

fn read(path: &Path) -> Result<Zeroizing<String>, CaError> {
    let text = std::fs::read_to_string(path).map_err(|error| io_error(path, error))?;
    Ok(Zeroizing::new(text))
}

pub(crate) fn io_error(path: &Path, source: io::Error) -> CaError {
    CaError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Why the authority does not issue a certificate, or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The key is sealed, and no passphrase is at hand.
    #[error("the authority's key is sealed, and no passphrase was given")]
    Locked,
    /// The key is on another machine.
    #[error("the authority's key is kept apart, on another machine")]
    Apart,
    /// What is carried to the key and back is not what it should be.
    #[error(transparent)]
    Carried(#[from] apart::CarriedError),
    /// The aggregator cannot show who it is.
    #[error(
        "the aggregator has no certificate of its own that is valid, and the authority's key is \
         not at hand"
    )]
    NoServerCertificate,
    /// A passphrase that does not open the key.
    #[error("{}: the passphrase does not open it", path.display())]
    WrongPassphrase {
        /// The key's file.
        path: PathBuf,
    },
    /// The key is sealed already.
    #[error("{} is sealed already", path.display())]
    AlreadySealed {
        /// The key's file.
        path: PathBuf,
    },
    /// The key is in the clear.
    #[error("{} is not sealed", path.display())]
    NotSealed {
        /// The key's file.
        path: PathBuf,
    },
    /// A file that gives no passphrase.
    #[error("passphrase: {0}")]
    Passphrase(#[from] PassphraseFault),
    /// A PKCS #11 token that does not serve.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A malformed request for a certificate.
    #[error("{}: {reason}", path.display())]
    Request {
        /// The request's file.
        path: PathBuf,
        /// Why it cannot be signed.
        reason: String,
    },
    /// A key or certificate that cannot be made or read.
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

impl CaError {
    /// Whether what needs the key may wait for it.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Locked | Self::Apart)
    }

    /// What would help, where something simple would.
    pub fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Locked => Some(Remedy::GivePassphrase),
            Self::Apart => Some(Remedy::CarryRequests),
            Self::Carried(error) => error.remedy(),
            Self::NoServerCertificate => Some(Remedy::SignWaiting),
            Self::AlreadySealed { .. } => Some(Remedy::ChangePassphrase),
            Self::NotSealed { .. } => Some(Remedy::SealKey),
            Self::Token(TokenError::NotBuilt) => Some(Remedy::BuildWithPkcs11),
            Self::Token(TokenError::Keys { found: 0, .. }) => Some(Remedy::MakeTokenKey),
            Self::WrongPassphrase { .. }
            | Self::Token(_)
            | Self::Passphrase(_)
            | Self::Request { .. }
            | Self::Pki(_)
            | Self::Io { .. } => None,
        }
    }
}
