//! `fedlora-aggregator ca`: the key of the certificate authority.

use std::path::{Path, PathBuf};

use fedlora_shell::{Failure, Printer};
use fedlora_transport::pki::Passphrase;
use serde_json::{Value, json};

use super::ca_apart::{self, DetachArgs, ExportArgs, ImportArgs, RevokeArgs, SignArgs};
use super::{exits, passphrase};
use crate::ca::CustodyKind;
use crate::ca::apart::AuthorityFolder;
use crate::ca::key_file::KeyFile;
use crate::ca::passphrase::PassphraseSource;
use crate::ca::requests::{CertificateRequest, Requests};
use crate::ca::sign::{self, Handled};
use crate::clock::{Clock, SystemClock};
use crate::directory::{Directory, Opened};
use crate::registry::Registry;
use crate::status::words::day;

/// `fedlora-aggregator ca` and its commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CaCommand {
    /// Show how the key is kept, and which certificates wait for it. Needs no passphrase.
    #[command(after_help = "Example:\n  fedlora-aggregator ca show --dir ~/operator")]
    Show(CaArgs),
    /// Seal the key by a passphrase: encrypted PKCS #8, which openssl reads too.
    #[command(after_help = "Example:\n  fedlora-aggregator ca seal --dir ~/operator")]
    Seal(SealArgs),
    /// Store the key in the clear again.
    #[command(after_help = "Example:\n  fedlora-aggregator ca unseal --dir ~/operator")]
    Unseal(OpenArgs),
    /// Give the sealed key another passphrase.
    #[command(after_help = "Example:\n  fedlora-aggregator ca change-passphrase --dir ~/operator")]
    ChangePassphrase(ChangeArgs),
    /// Sign the certificates that wait for the key, while `serve` runs or not. Members that wait have
    /// theirs when they connect the next time. Where the key is apart: sign what `ca export` has
    /// written.
    #[command(
        after_help = "Example:\n  fedlora-aggregator ca sign --dir ~/operator\n  fedlora-aggregator ca sign requests.json --out certificates.json --dir /media/ca"
    )]
    Sign(SignArgs),
    /// Take the sealed key out of the directory into a folder of its own, for another machine. Joins and
    /// renewals wait from then on until `ca export`, `ca sign` and `ca import` were run.
    #[command(
        after_help = "Example:\n  fedlora-aggregator ca detach --to /media/ca --dir ~/operator"
    )]
    Detach(DetachArgs),
    /// Write what waits for the key into a file, to be carried to the machine with the key.
    #[command(
        after_help = "Example:\n  fedlora-aggregator ca export requests.json --dir ~/operator"
    )]
    Export(ExportArgs),
    /// Take the certificates that were signed on the other machine, while `serve` runs or not.
    #[command(
        after_help = "Example:\n  fedlora-aggregator ca import certificates.json --dir ~/operator"
    )]
    Import(ImportArgs),
    /// Give a member's keys no certificate any more, in the folder of a key that is apart. `ca export`
    /// carries removals there by itself; this is for who does not rely on the aggregator's host.
    #[command(after_help = "Example:\n  fedlora-aggregator ca revoke hospital-a --dir /media/ca")]
    Revoke(RevokeArgs),
}

/// Options of `ca show`.
#[derive(Debug, clap::Args)]
pub(super) struct CaArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

impl CaArgs {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl OpenArgs {
    pub(super) fn dir(&self) -> &Path {
        &self.directory.dir
    }

    pub(super) fn passphrase_file(&self) -> Option<&Path> {
        self.passphrase_file.as_deref()
    }
}

/// Options of the commands that open the key.
#[derive(Debug, clap::Args)]
pub(super) struct OpenArgs {
    #[command(flatten)]
    directory: CaArgs,
    /// The file with the passphrase; `-` is a line of standard input [default: the systemd credential
    /// `ca-passphrase`, otherwise it is asked for on the terminal].
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Options of `ca seal`.
#[derive(Debug, clap::Args)]
pub(super) struct SealArgs {
    #[command(flatten)]
    directory: CaArgs,
    /// The file with the passphrase, of 12 characters or more; `-` is a line of standard input
    /// [default: it is asked for on the terminal].
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Options of `ca change-passphrase`.
#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// The file with the new passphrase, of 12 characters or more; `-` is a line of standard input, the
    /// one after the former passphrase [default: it is asked for on the terminal].
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(command: &CaCommand, printer: &Printer) -> Result<(), Failure> {
    match command {
        CaCommand::Show(args) => show(args, printer),
        CaCommand::Seal(args) => seal(args, printer),
        CaCommand::Unseal(args) => unseal(args, printer),
        CaCommand::ChangePassphrase(args) => change(args, printer),
        CaCommand::Sign(args) => match &args.requests {
            Some(requests) => ca_apart::sign(args, requests, printer),
            None if AuthorityFolder::is_one(args.open.dir()) => Err(ca_apart::nothing_named()),
            None => sign(&args.open, printer),
        },
        CaCommand::Detach(args) => ca_apart::detach(args, printer),
        CaCommand::Export(args) => ca_apart::export(args, printer),
        CaCommand::Import(args) => ca_apart::import(args, printer),
        CaCommand::Revoke(args) => ca_apart::revoke(args, printer),
    }
}

fn show(args: &CaArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.dir).map_err(exits::directory)?;
    let waiting = Requests::of(directory.root()).all().map_err(exits::ca)?;
    let authority = &opened.authority;
    let document = json!({
        "authority": authority.fingerprint().to_string(),
        "ca_key": authority.custody(),
        "until": authority.not_after().unix_timestamp() * 1000,
        "waiting": documents(&waiting),
    });
    printer.result(&document, || {
        let mut text = format!(
            "authority    {}\nits key      {}\nvalid until  {}",
            authority.fingerprint(),
            authority.custody().words(),
            authority.not_after().date(),
        );
        for one in &waiting {
            let since = day(one.asked());
            text.push_str(&format!("\nwaits        {}, since {since}", words_of(one)));
        }
        text
    });
    Ok(())
}

/// The requests as a status or a list has them.
pub(super) fn documents(waiting: &[CertificateRequest]) -> Vec<Value> {
    let document = |one: &CertificateRequest| json!({"kind": one.kind(), "member": one.member(), "asked": one.asked()});
    waiting.iter().map(document).collect()
}

/// What waits, in a few words.
pub(super) fn words_of(request: &CertificateRequest) -> String {
    words(request.kind(), request.member().map(|name| name.as_str()))
}

fn words(kind: &str, member: Option<&str>) -> String {
    match (kind, member) {
        ("join", Some(name)) => format!("{name}, which joins"),
        (_, Some(name)) => format!("{name}, whose certificate ends"),
        _ => "the aggregator's own certificate".to_owned(),
    }
}

fn seal(args: &SealArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.directory.dir;
    let (directory, opened) = Directory::open(dir).map_err(exits::directory)?;
    let key = KeyFile::hold(dir).map_err(exits::ca)?;
    if key.is_sealed().map_err(exits::ca)? {
        // Before anybody is asked.
        return Err(exits::ca(key.already_sealed()));
    }
    let chosen = passphrase::choose(args.passphrase_file.as_deref())?;
    key.seal(&chosen).map_err(exits::ca)?;
    sign_own(dir, &chosen)?;
    done(&opened, CustodyKind::Sealed, printer);
    if printer.is_text() {
        printer.note(
            &"copies of the key in backups, and what the disk keeps of the former file, are \
                       in the clear as before",
        );
        if directory.is_served().map_err(exits::directory)? {
            printer
                .note(&"the process that serves has the key in memory until it is started again");
        }
    }
    Ok(())
}

fn unseal(args: &OpenArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.directory.dir;
    let (_, opened) = Directory::open(dir).map_err(exits::directory)?;
    let key = KeyFile::hold(dir).map_err(exits::ca)?;
    if !key.is_sealed().map_err(exits::ca)? {
        return Err(exits::ca(key.not_sealed()));
    }
    let given = passphrase::open(args.passphrase_file.as_deref())?;
    key.unseal(&given).map_err(exits::ca)?;
    done(&opened, CustodyKind::Clear, printer);
    Ok(())
}

fn change(args: &ChangeArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.open.directory.dir;
    let (_, opened) = Directory::open(dir).map_err(exits::directory)?;
    let key = KeyFile::hold(dir).map_err(exits::ca)?;
    if !key.is_sealed().map_err(exits::ca)? {
        return Err(exits::ca(key.not_sealed()));
    }
    let former = passphrase::open(args.open.passphrase_file.as_deref())?;
    // Before a new one is thought of.
    key.check_opens(&former).map_err(exits::ca)?;
    let next = passphrase::choose(args.new_passphrase_file.as_deref())?;
    key.change(&former, &next).map_err(exits::ca)?;
    done(&opened, CustodyKind::Sealed, printer);
    Ok(())
}

fn done(opened: &Opened, custody: CustodyKind, printer: &Printer) {
    let authority = opened.authority.fingerprint();
    let document = json!({"authority": authority.to_string(), "ca_key": custody});
    printer.result(&document, || {
        format!("authority    {authority}\nits key      {}", custody.words())
    });
}

/// Signs the aggregator's own certificate: what `serve` shows without the passphrase.
pub(super) fn sign_own(dir: &Path, passphrase: &Passphrase) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(dir).map_err(exits::directory)?;
    let source = PassphraseSource::Given(passphrase.clone());
    let opened = opened.with_passphrase(Some(&source));
    let opened = opened.map_err(exits::directory)?;
    let registry = Registry::new(directory);
    let signed = sign::sign_waiting(&registry, &opened.authority, &SystemClock);
    signed.map(|_| ()).map_err(exits::sign)
}

fn sign(args: &OpenArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.directory.dir).map_err(exits::directory)?;
    let now = SystemClock.now();
    let waiting = sign::prepare(directory.root(), &opened.authority, now).map_err(exits::ca)?;
    // Nobody is asked for nothing.
    let opened = match !waiting.is_empty() && opened.authority.custody() == CustodyKind::Sealed {
        true => {
            let given = passphrase::open(args.passphrase_file.as_deref())?;
            let source = PassphraseSource::Given(given);
            let opened = opened.with_passphrase(Some(&source));
            opened.map_err(exits::directory)?
        }
        false => opened,
    };
    let registry = Registry::new(directory);
    let handled = sign::sign_waiting(&registry, &opened.authority, &SystemClock);
    let handled = handled.map_err(exits::sign)?;
    print_handled(&handled, "nothing waits for the authority's key", printer);
    Ok(())
}

/// Prints what became of requests, and `none` where there were none.
pub(super) fn print_handled(handled: &[Handled], none: &str, printer: &Printer) {
    let document = json!({"certificates": handled_documents(handled)});
    printer.result(&document, || handled_words(handled, none));
}

/// What became of requests, as a list has it.
pub(super) fn handled_documents(handled: &[Handled]) -> Vec<Value> {
    let document = |one: &Handled| {
        let signed = one.outcome.as_ref().ok();
        json!({
            "kind": one.kind,
            "member": one.member,
            "key": signed.map(|signed| signed.key.to_string()),
            "until": signed.map(|signed| signed.not_after.unix_timestamp() * 1000),
            "refused": one.outcome.as_ref().err(),
        })
    };
    handled.iter().map(document).collect()
}

/// What became of requests, a line each, and `none` where there were none.
pub(super) fn handled_words(handled: &[Handled], none: &str) -> String {
    let line = |one: &Handled| {
        let what = words(one.kind, one.member.as_ref().map(|name| name.as_str()));
        match &one.outcome {
            Ok(signed) => format!(
                "signed       {what}: key {}, until {}",
                signed.key,
                signed.not_after.date()
            ),
            Err(reason) => format!("refused      {what}: {reason}"),
        }
    };
    match handled {
        [] => none.to_owned(),
        some => some.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}
