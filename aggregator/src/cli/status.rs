//! `fedlora-aggregator status`: how far a run is.

use std::path::PathBuf;

use anyhow::Context;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Format, Printer};
use serde_json::json;

use super::{ca, exits};
use crate::ca::CustodyKind;
use crate::ca::requests::Requests;
use crate::database::StoreNote;
use crate::directory::Directory;
use crate::status::words::day;
use crate::status::{Status, WaitingCertificate};

/// Options of `fedlora-aggregator status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &StatusArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.dir).map_err(exits::directory)?;
    let path = directory.status_path();
    let status = Status::read(&path)
        .with_context(|| path.display().to_string())
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let served = directory.is_served().map_err(exits::directory)?;
    let note = StoreNote::read(directory.root());
    let note = note
        .with_context(|| StoreNote::path(directory.root()).display().to_string())
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    // The lock is that of a process that stands by.
    let standby_of = note.standby_of.filter(|_| served);
    let status = status.map(|mut status| {
        if !served || standby_of.is_some() {
            status = status.unserved();
        }
        status.standby_of.clone_from(&standby_of);
        status
    });
    let federation = &opened.config.federation;
    let waiting = Requests::of(directory.root()).all().map_err(exits::ca)?;
    match (printer.format(), status) {
        // Read from a file, with the version of its form.
        (Format::Json, Some(mut status)) => {
            status.certificates_waiting = waiting.iter().map(WaitingCertificate::of).collect();
            printer.stored(&status);
        }
        (Format::Text, Some(status)) => printer.data(&status.page(fedlora_shell::now())),
        (_, None) => {
            let mut document = json!({"federation": federation, "state": null});
            if let Some(host) = &standby_of {
                document["standby_of"] = json!(host);
            }
            if !waiting.is_empty() {
                document["certificates_waiting"] = json!(ca::documents(&waiting));
            }
            printer.result(&document, || {
                format!("{federation}: no run was served here yet")
            });
        }
    }
    for one in waiting.iter().filter(|_| printer.is_text()) {
        let (what, since) = (ca::words_of(one), day(one.asked()));
        let way = match opened.authority.custody() {
            CustodyKind::Apart => "`fedlora-aggregator ca export` writes it for the key's machine",
            _ => "`fedlora-aggregator ca sign` signs it",
        };
        printer.note(&format!(
            "waits for the authority's key since {since}: {what}; {way}"
        ));
    }
    if let Some(host) = standby_of.filter(|_| printer.is_text()) {
        printer.note(&format!(
            "this host stands by: {host} serves the federation"
        ));
    }
    Ok(())
}
