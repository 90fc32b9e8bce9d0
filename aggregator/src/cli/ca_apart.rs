//! `fedlora-aggregator ca` for a key that is apart from the aggregator: it is taken out, and what waits is
//! carried there and back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::MemberName;
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::ca::{
    CaArgs, OpenArgs, documents, handled_documents, handled_words, print_handled, words_of,
};
use super::{exits, hints, passphrase};
use crate::ca::apart::{self, Allowed, AuthorityFolder, Judged, RemovedMember};
use crate::ca::passphrase::PassphraseSource;
use crate::clock::{Clock, SystemClock};
use crate::directory::Directory;
use crate::registry::Registry;
use crate::remedy::Remedy;

/// Options of `ca detach`.
#[derive(Debug, clap::Args)]
pub(super) struct DetachArgs {
    #[command(flatten)]
    open: OpenArgs,
    /// The folder to make for the key, on a medium that you can take out: it holds the key from then on.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

/// Options of `ca export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    directory: CaArgs,
    /// The file to write. It holds no secret, and is replaced where it is there.
    requests: PathBuf,
}

/// Options of `ca import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    directory: CaArgs,
    /// The file that `ca sign` has written.
    certificates: PathBuf,
}

/// Options of `ca revoke`.
#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// The folder of the key that is apart.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The member whose keys get no certificate any more.
    member: MemberName,
}

/// Options of `ca sign`.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    #[command(flatten)]
    pub(super) open: OpenArgs,
    /// What to sign, as `ca export` has written it, where --dir is the folder of a key that is apart.
    #[arg(requires = "out")]
    pub(super) requests: Option<PathBuf>,
    /// The file to write the certificates to, for `ca import`.
    #[arg(long, value_name = "FILE", requires = "requests")]
    out: Option<PathBuf>,
    /// Leave out the request of this member; may be repeated.
    #[arg(long, value_name = "NAME", requires = "requests")]
    except: Vec<MemberName>,
    /// This member has other keys than before by intent; may be repeated.
    #[arg(long, value_name = "NAME", requires = "requests")]
    re_key: Vec<MemberName>,
}

/// Takes the key out of the operator's directory.
pub(super) fn detach(args: &DetachArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = args.open.dir();
    let (directory, opened) = Directory::open(dir).map_err(exits::directory)?;
    // A process that serves may use the key.
    let _lock = directory.lock().map_err(exits::directory)?;
    let given = passphrase::open(args.open.passphrase_file())?;
    let registry = Registry::new(directory);
    apart::detach(&registry, &opened, &given, &args.to).map_err(exits::sign)?;
    let authority = opened.authority.fingerprint().to_string();
    let document = json!({"authority": authority, "ca_key": "apart", "folder": args.to});
    printer.result(&document, || {
        let to = args.to.display();
        format!("authority    {authority}\nits key      in {to}: take it to another machine")
    });
    if printer.is_text() {
        printer.note(&"copies of the key in backups are as they were: destroy them");
    }
    Ok(())
}

/// Writes what waits into a file.
pub(super) fn export(args: &ExportArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(args.directory.dir()).map_err(exits::directory)?;
    let registry = Registry::new(directory);
    let now = SystemClock.now();
    let written = apart::export(&registry, &opened, now, &args.requests).map_err(exits::sign)?;
    let document = json!({
        "file": args.requests,
        "requests": documents(&written.requests),
        "removed": written.removed,
    });
    printer.result(&document, || {
        let waits = written.requests.iter();
        let waits = waits.map(|one| format!("waits        {}", words_of(one)));
        let removed = written.removed.iter();
        let removed = removed.map(|one| format!("removed      {}: key {}", one.member, one.key));
        let lines: Vec<_> = waits.chain(removed).collect();
        match &lines[..] {
            [] => "nothing waits for the authority's key".to_owned(),
            some => some.join("\n"),
        }
    });
    Ok(())
}

/// Revokes a member's keys in the folder of a key that is apart.
pub(super) fn revoke(args: &RevokeArgs, printer: &Printer) -> Result<(), Failure> {
    let mut folder = AuthorityFolder::open(&args.dir).map_err(exits::ca)?;
    let revoked = folder.revoke(&args.member, SystemClock.now());
    let revoked: Vec<_> = revoked
        .map_err(|error| exits::ca(error.into()))?
        .into_iter()
        .collect();
    folder.keep().map_err(exits::ca)?;
    printer.result(&json!({"revoked": revoked}), || match &revoked[..] {
        [] => format!("all keys of {} are revoked already", args.member),
        some => revoked_lines(some),
    });
    if printer.is_text() {
        printer
            .note(&"the certificates that it has end by themselves: remove it at the aggregator");
    }
    Ok(())
}

fn revoked_lines(revoked: &[RemovedMember]) -> String {
    let line = |one: &RemovedMember| format!("revoked      {}: key {}", one.member, one.key);
    revoked.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Takes what was signed.
pub(super) fn import(args: &ImportArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(args.directory.dir()).map_err(exits::directory)?;
    let registry = Registry::new(directory);
    let now = SystemClock.now();
    let taken = apart::take(&registry, &opened, now, &args.certificates).map_err(exits::sign)?;
    let refused = taken.iter().filter(|one| one.outcome.is_err()).count();
    print_handled(&taken, "nothing in the file waits here", printer);
    match refused {
        0 => Ok(()),
        some => {
            let error = anyhow!("{some} of the certificates were not taken");
            Err(Failure::new(Exit::Integrity, error))
        }
    }
}

/// The error of signing in the folder of a key that is apart, where nobody says what.
pub(super) fn nothing_named() -> Failure {
    let error = anyhow!("here the key is apart from the aggregator: what to sign is in a file");
    Failure::new(Exit::Usage, error).with_hint(hints::of(&Remedy::CarryRequests))
}

/// Shows the requests in a file, and signs them with the key in its folder.
pub(super) fn sign(args: &SignArgs, requests: &Path, printer: &Printer) -> Result<(), Failure> {
    let mut folder = AuthorityFolder::open(args.open.dir()).map_err(exits::ca)?;
    let requests = folder.requests(requests).map_err(exits::ca)?;
    let allowed = Allowed {
        other_keys: args.re_key.iter().cloned().collect::<BTreeSet<_>>(),
        left_out: args.except.iter().cloned().collect(),
    };
    let revoked = folder.take_removals(&requests, SystemClock.now());
    let judged = folder.judge(&requests, &allowed);
    if printer.is_text() {
        let (federation, authority) = (folder.federation(), folder.authority().fingerprint());
        printer.note(&format!(
            "federation   {federation}\nauthority    {authority}"
        ));
        for one in &judged {
            printer.note(&shown(one));
        }
        if !revoked.is_empty() {
            printer.note(&revoked_lines(&revoked));
        }
    }
    if requests.requests.is_empty() && !revoked.is_empty() {
        // That needs no key.
        folder.keep().map_err(exits::ca)?;
        let document = json!({"certificates": [], "revoked": revoked});
        printer.result(&document, || {
            "nothing waits for the authority's key".to_owned()
        });
        return Ok(());
    }
    // Nobody is asked about what will not be signed.
    apart::check(&judged).map_err(|error| exits::ca(error.into()))?;
    let given = passphrase::open(args.open.passphrase_file())?;
    let source = PassphraseSource::Given(given);
    let signed = folder.sign(&judged, &source, &SystemClock);
    let (certificates, handled) = signed.map_err(exits::ca)?;
    if let Some(out) = &args.out {
        certificates.write(out).map_err(exits::ca)?;
    }
    let document = json!({"certificates": handled_documents(&handled), "revoked": revoked});
    printer.result(&document, || handled_words(&handled, "nothing was signed"));
    Ok(())
}

/// A request, with what the person at the key compares.
fn shown(one: &Judged<'_>) -> String {
    let what = words_of(one.request);
    let key = one.key.map(|key| format!("\n  key        {key}"));
    let identity = one.request.identity();
    let identity = identity.map(|one| format!("\n  identity   {}", one.fingerprint()));
    let news = match (&one.doubt, one.is_known) {
        (Some(doubt), _) => format!("\n  refused    {doubt}"),
        (None, true) => String::new(),
        (None, false) => "\n  new        no certificate for this key so far".to_owned(),
    };
    let (key, identity) = (key.unwrap_or_default(), identity.unwrap_or_default());
    format!("to sign      {what}{key}{identity}{news}")
}
