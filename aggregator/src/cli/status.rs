//! `fedlora-aggregator status`: how far a run is.

use std::path::PathBuf;

use anyhow::Context;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Format, Printer};
use serde_json::json;

use super::exits;
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
    let status = status.map(|status| if served { status } else { status.unserved() });
    let federation = &opened.config.federation;
    match (printer.format(), status) {
        // Read from a file, with the version of its form.
        (Format::Json, Some(status)) => printer.stored(&status),
        (Format::Text, Some(status)) => printer.data(&status.page(fedlora_shell::now())),
        (_, None) => printer.result(&json!({"federation": federation, "state": null}), || {
            format!("{federation}: no run was served yet")
        }),
    }
    Ok(())
}
