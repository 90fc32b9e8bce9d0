//! Where the commands get the passphrase of the authority's key: a file, a line of standard input, a
//! systemd credential, or somebody at the terminal. Never an argument, which others can see.

use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, ask_secret};
use fedlora_transport::pki::Passphrase;
use zeroize::Zeroizing;

use super::{exits, hints};
use crate::ca::passphrase::{PassphraseSource, line_of};
use crate::remedy::Remedy;

/// What the command line or the service manager gives; nobody is asked.
///
/// # Errors
/// Standard input that cannot be read, or holds no passphrase.
pub(super) fn given(file: Option<&Path>) -> Result<Option<PassphraseSource>, Failure> {
    match file {
        Some(file) if file == Path::new("-") => {
            let passphrase = Passphrase::new(stdin_line()?).map_err(usage)?;
            Ok(Some(PassphraseSource::Given(passphrase)))
        }
        Some(file) => {
            let source = PassphraseSource::File(file.to_owned());
            match file.metadata() {
                // A pipe of the shell's gives it once.
                Ok(found) if !found.is_file() => {
                    let passphrase = source.open().map_err(|fault| exits::ca(fault.into()))?;
                    Ok(Some(PassphraseSource::Given(passphrase)))
                }
                _ => Ok(Some(source)),
            }
        }
        None => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
            Ok(PassphraseSource::credential(
                folder.as_deref().map(Path::new),
            ))
        }
    }
}

/// The passphrase that opens the key, asked for on the terminal where nothing gives it.
///
/// # Errors
/// No terminal to ask on; what is given is no passphrase.
pub(super) fn open(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match given(file)? {
        Some(source) => source.open().map_err(|fault| exits::ca(fault.into())),
        None => Passphrase::new(ask("Passphrase of the authority's key")?).map_err(usage),
    }
}

/// A passphrase that is to seal the key. Asked for twice on the terminal, where no file gives it.
///
/// # Errors
/// As [`open`]; one that is too short, or typed otherwise the second time.
pub(super) fn choose(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(file) if file == Path::new("-") => Passphrase::chosen(stdin_line()?).map_err(usage),
        Some(file) => {
            let source = PassphraseSource::File(file.to_owned());
            source.choose().map_err(|fault| exits::ca(fault.into()))
        }
        None => twice("New passphrase of the authority's key"),
    }
}

/// A passphrase that is to seal an operator's own key.
///
/// # Errors
/// As [`choose`].
pub(super) fn choose_for_operator(file: Option<&Path>) -> Result<Passphrase, Failure> {
    match file {
        Some(file) => choose(Some(file)),
        None => twice("New passphrase of your operator's key"),
    }
}

fn twice(question: &str) -> Result<Passphrase, Failure> {
    let chosen = Passphrase::chosen(ask(question)?).map_err(usage)?;
    let again = Passphrase::new(ask("The same again")?).map_err(usage)?;
    match chosen == again {
        true => Ok(chosen),
        false => Err(usage(anyhow!("the two passphrases differ"))),
    }
}

/// The passphrase that opens an operator's own key, asked for on the terminal where no file gives it.
///
/// # Errors
/// As [`open`].
pub(super) fn of_operator(file: Option<&Path>) -> Result<Passphrase, Failure> {
    // The credential of the authority's key is another one.
    let source = file.map(|file| given(Some(file))).transpose()?.flatten();
    match source {
        Some(source) => source.open().map_err(|fault| exits::ca(fault.into())),
        None => Passphrase::new(ask("Passphrase of your operator's key")?).map_err(usage),
    }
}

fn ask(question: &str) -> Result<Zeroizing<String>, Failure> {
    let typed = ask_secret(question).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::new(Exit::Interrupted, error),
        _ => Failure::new(Exit::Failed, error),
    })?;
    typed.ok_or_else(|| {
        let error = anyhow!("a passphrase is needed, and there is no terminal to ask for it on");
        usage(error).with_hint(hints::of(&Remedy::GivePassphrase))
    })
}

/// The next line of standard input. Where two passphrases come from there, each has its own.
fn stdin_line() -> Result<Zeroizing<String>, Failure> {
    let line = line_of(&mut io::stdin().lock()).context("standard input");
    line.map_err(|error| Failure::new(Exit::Failed, error))
}

fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Usage, error)
}
