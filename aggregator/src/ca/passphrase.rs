//! Where the passphrase of the authority's key comes from: a file, which a systemd credential is too, or
//! what a person has typed. Never the command line, which others on the machine can see.

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use fedlora_transport::pki::{Passphrase, PassphraseError, PkiError, read_key};
use zeroize::Zeroizing;

/// The name of the systemd credential that holds the passphrase.
pub const CREDENTIAL: &str = "ca-passphrase";

/// Where a passphrase comes from when it is needed.
#[derive(Debug, Clone)]
pub enum PassphraseSource {
    /// It was given, and is kept in memory.
    Given(Passphrase),
    /// It is read from a file each time, and not kept.
    File(PathBuf),
}

impl PassphraseSource {
    /// The file of a systemd credential in the folder that `CREDENTIALS_DIRECTORY` names, where there is
    /// one.
    pub fn credential(folder: Option<&Path>) -> Option<Self> {
        let path = folder?.join(CREDENTIAL);
        path.exists().then_some(Self::File(path))
    }

    /// The passphrase that opens a key.
    ///
    /// # Errors
    /// [`PassphraseFault`] naming the file.
    pub fn open(&self) -> Result<Passphrase, PassphraseFault> {
        match self {
            Self::Given(passphrase) => Ok(passphrase.clone()),
            Self::File(path) => read(path, Passphrase::new),
        }
    }

    /// A passphrase that is to seal a key.
    ///
    /// # Errors
    /// [`PassphraseFault`] naming the file; one that is too short.
    pub fn choose(&self) -> Result<Passphrase, PassphraseFault> {
        match self {
            Self::Given(passphrase) => Ok(passphrase.clone()),
            Self::File(path) => read(path, Passphrase::chosen),
        }
    }
}

/// The next line of standard input, without its end.
///
/// # Errors
/// The system's error.
pub fn line_of(input: &mut impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    input.read_line(&mut line)?;
    Ok(without_end(line))
}

fn read(
    path: &Path,
    judge: impl FnOnce(Zeroizing<String>) -> Result<Passphrase, PassphraseError>,
) -> Result<Passphrase, PassphraseFault> {
    let at = |fault| PassphraseFault {
        path: path.to_owned(),
        fault,
    };
    // A pipe of the shell's is nobody else's.
    let text = match fs::metadata(path) {
        Ok(file) if file.is_file() => read_key(path).map_err(|error| match error {
            PkiError::File { source, .. } => at(FileFault::Io(source)),
            PkiError::Exposed { mode, .. } => at(FileFault::Exposed { mode }),
            error => at(FileFault::Io(io::Error::other(error))),
        })?,
        Ok(_) => fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|source| at(FileFault::Io(source)))?,
        Err(source) => return Err(at(FileFault::Io(source))),
    };
    judge(without_end(text)).map_err(|error| at(FileFault::Text(error)))
}

fn without_end(mut line: Zeroizing<String>) -> Zeroizing<String> {
    if line.ends_with('\n') {
        line.pop();
        if line.ends_with('\r') {
            line.pop();
        }
    }
    line
}

/// A file that gives no passphrase.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct PassphraseFault {
    path: PathBuf,
    #[source]
    fault: FileFault,
}

impl PassphraseFault {
    /// Whether the file was read, and what stands in it will not do.
    pub fn is_content(&self) -> bool {
        matches!(self.fault, FileFault::Text(_))
    }
}

/// What is wrong with a file for a passphrase.
#[derive(Debug, thiserror::Error)]
enum FileFault {
    #[error(transparent)]
    Text(PassphraseError),
    #[error(
        "it is open to every user (mode {mode:03o}): chmod 600 it, and choose another passphrase"
    )]
    Exposed { mode: u32 },
    #[error(transparent)]
    Io(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_gives_its_one_line_unless_others_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CREDENTIAL);
        assert!(PassphraseSource::credential(Some(folder.path())).is_none());
        assert!(PassphraseSource::credential(None).is_none());
        let write = |text: &[u8], mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            PassphraseSource::credential(Some(folder.path())).unwrap()
        };
        let right = Passphrase::new(Zeroizing::new("correct horse battery".to_owned())).unwrap();
        for text in [
            "correct horse battery",
            "correct horse battery\n",
            "correct horse battery\r\n",
        ] {
            assert!(write(text.as_bytes(), 0o640).open().unwrap() == right);
        }
        for (text, mode, word) in [
            (&b""[..], 0o600, "empty"),
            (b"\n", 0o600, "empty"),
            (b"one\ntwo\n", 0o600, "more than one line"),
            (b"correct horse battery\xff", 0o600, "UTF-8"),
            (b"correct horse battery", 0o604, "chmod 600"),
        ] {
            let error = write(text, mode).open().unwrap_err().to_string();
            assert!(
                error.contains(word) && error.contains(CREDENTIAL),
                "{error}"
            );
            assert!(!error.contains("horse"), "{error}");
        }
        let short = write(b"short\n", 0o600);
        assert!(short.open().is_ok());
        assert!(short.choose().unwrap_err().is_content());
        fs::remove_file(&path).unwrap();
        assert!(!short.open().unwrap_err().is_content());
    }

    #[test]
    fn standard_input_gives_line_after_line() {
        let mut input = &b"former one\nlatter one\r\nlast"[..];
        let mut next = || line_of(&mut input).unwrap().to_string();
        assert_eq!(
            [next(), next(), next(), next()],
            ["former one", "latter one", "last", ""]
        );
    }
}
