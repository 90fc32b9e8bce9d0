//! `fedlora-aggregator status`: how far a run is.

use std::path::PathBuf;

use anyhow::Context;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Format, Printer};
use serde_json::json;

use super::exits;
use crate::database::StoreNote;
use crate::directory::Directory;
use crate::status::Status;

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
    match (printer.format(), status) {
        // Read from a file, with the version of its form.
        (Format::Json, Some(status)) => printer.stored(&status),
        (Format::Text, Some(status)) => printer.data(&status.page(fedlora_shell::now())),
        (_, None) => {
            let mut document = json!({"federation": federation, "state": null});
            if let Some(host) = &standby_of {
                document["standby_of"] = json!(host);
            }
            printer.result(&document, || {
                format!("{federation}: no run was served here yet")
            });
        }
    }
    if let Some(host) = standby_of.filter(|_| printer.is_text()) {
        printer.note(&format!(
            "this host stands by: {host} serves the federation"
        ));
    }
    Ok(())
}
