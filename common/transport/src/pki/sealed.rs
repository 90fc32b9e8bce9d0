//! A private key that a passphrase seals: encrypted PKCS #8 (RFC 5958) in PEM, by PBES2 (RFC 8018)
//! with PBKDF2-HMAC-SHA256 and AES-256-CBC. OpenSSL reads and writes the same.

use std::fmt;

use pkcs8::pkcs5::{self, pbes2};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::error::PkiError;

/// Rounds of PBKDF2: what OWASP's cheat sheet on password storage asks for with HMAC-SHA256 (2023,
/// unchanged in 2026). Each try takes 0.13 s of an AMD EPYC processor, which has instructions for SHA-256.
const SEAL_ROUNDS: u32 = 600_000;

/// The fewest characters of a passphrase that seals a key.
pub const MIN_PASSPHRASE: usize = 12;
/// The most bytes of a passphrase.
const MAX_PASSPHRASE: usize = 1024;

const SEALED_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// A passphrase; wiped when dropped, and never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// A passphrase that opens a key.
    ///
    /// # Errors
    /// [`PassphraseError`] for none, one that is too long, or one with control characters, such as the
    /// end of a line.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        if text.len() > MAX_PASSPHRASE {
            return Err(PassphraseError::Long { found: text.len() });
        }
        match text.chars().any(char::is_control) {
            true => Err(PassphraseError::Control),
            false => Ok(Self(text)),
        }
    }

    /// A passphrase that is to seal a key.
    ///
    /// # Errors
    /// As [`new`](Self::new), and for fewer than [`MIN_PASSPHRASE`] characters.
    pub fn chosen(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        let chosen = Self::new(text)?;
        match chosen.0.chars().count() {
            found if found < MIN_PASSPHRASE => Err(PassphraseError::Short { found }),
            _ => Ok(chosen),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Why a text is no passphrase. Says nothing of the text but its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseError {
    /// Nothing was given.
    #[error("the passphrase is empty")]
    Empty,
    /// Too few characters.
    #[error("the passphrase has {found} characters; at least {MIN_PASSPHRASE} are needed")]
    Short {
        /// Characters found.
        found: usize,
    },
    /// Too many bytes.
    #[error("the passphrase has {found} bytes; at most {MAX_PASSPHRASE} are taken")]
    Long {
        /// Bytes found.
        found: usize,
    },
    /// The end of a line or another character that nobody types.
    #[error("the passphrase has more than one line, or another control character")]
    Control,
}

/// Whether a PEM text holds a sealed key.
pub fn is_sealed(pem: &str) -> bool {
    pem.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// Seals a private key in PKCS #8 PEM.
///
/// # Errors
/// [`PkiError::Key`] for what is no such key; [`PkiError::Sealed`] where it cannot be sealed.
pub fn seal(
    key_pem: &str,
    passphrase: &Passphrase,
    rng: &mut impl CryptoRng,
) -> Result<String, PkiError> {
    seal_with(key_pem, passphrase, SEAL_ROUNDS, rng)
}

fn seal_with(
    key_pem: &str,
    passphrase: &Passphrase,
    rounds: u32,
    rng: &mut impl CryptoRng,
) -> Result<String, PkiError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut iv);
    let (_, key) = SecretDocument::from_pem(key_pem).map_err(|_| PkiError::Key)?;
    let key = PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| PkiError::Key)?;
    let sealed = pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(rounds, &salt, iv)
        .map_err(pkcs8::Error::from)
        .and_then(|parameters| key.encrypt_with_params(parameters, passphrase.bytes()))
        .map_err(|error| sealed_error(&error))?;
    let pem = sealed.to_pem(SEALED_LABEL, LineEnding::LF);
    pem.map(|pem| pem.to_string())
        .map_err(|error| sealed_error(&error.into()))
}

/// Opens a sealed key: PKCS #8 PEM in the clear.
///
/// # Errors
/// [`PkiError::WrongPassphrase`]; [`PkiError::Sealed`] for a text that is no sealed key, or one that is
/// sealed by means that this program has not.
pub fn unseal(sealed_pem: &str, passphrase: &Passphrase) -> Result<Zeroizing<String>, PkiError> {
    let (label, sealed) =
        SecretDocument::from_pem(sealed_pem).map_err(|error| sealed_error(&error.into()))?;
    if label != SEALED_LABEL {
        return Err(PkiError::Sealed {
            reason: format!("not an encrypted private key in PKCS #8 PEM, but '{label}'"),
        });
    }
    let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes())
        .map_err(|error| sealed_error(&error))?;
    let key = sealed
        .decrypt(passphrase.bytes())
        .map_err(|error| match error {
            // What another key than the right one makes of it is no DER, where its padding is right by
            // chance.
            pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed)
            | pkcs8::Error::Asn1(_) => PkiError::WrongPassphrase,
            error => sealed_error(&error),
        })?;
    PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| PkiError::WrongPassphrase)?;
    key.to_pem("PRIVATE KEY", LineEnding::LF)
        .map_err(|error| sealed_error(&error.into()))
}

fn sealed_error(error: &pkcs8::Error) -> PkiError {
    PkiError::Sealed {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use fedlora_protocol::crypto::os_rng;

    use super::*;
    use crate::pki::TlsKeyPair;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::chosen(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_alone() {
        let key = TlsKeyPair::generate().unwrap();
        let right = passphrase("correct horse battery");
        let sealed = seal(&key.to_pem(), &right, &mut os_rng()).unwrap();
        assert!(is_sealed(&sealed) && !is_sealed(&key.to_pem()));
        let opened = unseal(&sealed, &right).unwrap();
        assert_eq!(
            TlsKeyPair::from_pem(&opened).unwrap().digest(),
            key.digest()
        );
        let again = seal(&key.to_pem(), &right, &mut os_rng()).unwrap();
        assert_ne!(again, sealed, "salt and IV are new");
        assert!(matches!(TlsKeyPair::from_pem(&sealed), Err(PkiError::Key)));

        // A wrong one is told, whatever the padding looks like by chance.
        let quick = seal_with(&key.to_pem(), &right, 1, &mut os_rng()).unwrap();
        for number in 0..2000 {
            let wrong = passphrase(&format!("correct horse battery {number}"));
            let error = unseal(&quick, &wrong).unwrap_err();
            assert!(matches!(error, PkiError::WrongPassphrase), "{error}");
        }
        assert!(!format!("{right:?}").contains("horse"));
    }

    #[test]
    fn what_is_no_sealed_key_is_told_apart_from_a_wrong_passphrase() {
        let key = TlsKeyPair::generate().unwrap().to_pem();
        let given = passphrase("correct horse battery");
        let sealed = seal_with(&key, &given, 1, &mut os_rng()).unwrap();
        let cut = &sealed[..sealed.len() / 2];
        for wrong in ["", "letmein", cut, &key] {
            let error = unseal(wrong, &given).unwrap_err();
            assert!(matches!(error, PkiError::Sealed { .. }), "{error}");
            assert!(!error.to_string().contains("horse"));
        }
        for wrong in ["", "letmein", &sealed] {
            let error = seal(wrong, &given, &mut os_rng()).unwrap_err();
            assert!(matches!(error, PkiError::Key), "{error}");
        }
    }

    #[test]
    fn passphrases_that_are_empty_short_or_of_two_lines_are_refused() {
        let new = |text: &str| Passphrase::new(Zeroizing::new(text.to_owned()));
        let chosen = |text: &str| Passphrase::chosen(Zeroizing::new(text.to_owned()));
        assert_eq!(chosen("").unwrap_err(), PassphraseError::Empty);
        assert_eq!(new("").unwrap_err(), PassphraseError::Empty);
        assert_eq!(
            chosen("eleven char").unwrap_err(),
            PassphraseError::Short { found: 11 }
        );
        // One that somebody else chose may be short.
        assert!(new("short").is_ok() && chosen("zwölf zeichen").is_ok());
        assert_eq!(
            new("one line\nanother").unwrap_err(),
            PassphraseError::Control
        );
        let long = "a".repeat(MAX_PASSPHRASE + 1);
        assert!(matches!(new(&long), Err(PassphraseError::Long { .. })));
    }

    /// OpenSSL is on every machine that builds this program's dependencies; without it there is nothing
    /// to compare with.
    #[test]
    fn openssl_opens_what_is_sealed_here_and_the_other_way_round() {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: there is no openssl");
            return;
        }
        let openssl = |arguments: &[&str], input: &str| {
            let mut child = Command::new("openssl")
                .args(arguments)
                .env("FEDLORA_TEST_PASSPHRASE", "correct horse battery")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            let done = child.wait_with_output().unwrap();
            assert!(done.status.success(), "{arguments:?}");
            Zeroizing::new(String::from_utf8(done.stdout).unwrap())
        };
        let digest = |pem: &str| TlsKeyPair::from_pem(pem).unwrap().digest();
        let key = TlsKeyPair::generate().unwrap();
        let given = passphrase("correct horse battery");
        let sealed = seal(&key.to_pem(), &given, &mut os_rng()).unwrap();
        let pass = "env:FEDLORA_TEST_PASSPHRASE";
        let opened = openssl(&["pkey", "-passin", pass], &sealed);
        assert_eq!(digest(&opened), key.digest());
        for kind in [
            &["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256"][..],
            &["-scrypt"],
        ] {
            let arguments = [&["pkcs8", "-topk8", "-passout", pass], kind].concat();
            let theirs = openssl(&arguments, &key.to_pem());
            assert_eq!(digest(&unseal(&theirs, &given).unwrap()), key.digest());
        }
    }
}
