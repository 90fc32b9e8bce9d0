//! `fedlora-aggregator store`: the database and the objects behind an operator's directory.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::exits;
use crate::database::{SharedStore, StoreError};
use crate::directory::{Directory, DirectoryError};

/// `fedlora-aggregator store` and its commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum StoreCommand {
    /// Store the directory in a database that is empty. Nothing may serve the federation meanwhile.
    #[command(after_help = "Example:\n  fedlora-aggregator store import --dir ~/operator")]
    Import(ImportArgs),
    /// Compare directory and database: sizes and digests of all files. Changes neither.
    #[command(after_help = "Example:\n  fedlora-aggregator store check --dir ~/operator")]
    Check(StoreArgs),
}

/// Options of `store check`.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Options of `store import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    directory: StoreArgs,
    /// Put the directory in place of what the database holds. What that has and the directory has not
    /// is lost.
    #[arg(long)]
    replace: bool,
}

/// Runs the command.
pub(super) fn run(command: StoreCommand, printer: &Printer) -> Result<(), Failure> {
    match command {
        StoreCommand::Import(args) => import(&args, printer),
        StoreCommand::Check(args) => check(&args, printer),
    }
}

fn connect(dir: &Path) -> Result<(Directory, SharedStore), Failure> {
    let (directory, opened) = Directory::open(dir).map_err(exits::directory)?;
    let shared = directory.shared_store(&opened).map_err(exits::directory)?;
    let shared = shared.ok_or_else(|| {
        failed(StoreError::None {
            path: dir.to_owned(),
        })
    })?;
    Ok((directory, shared))
}

fn failed(error: StoreError) -> Failure {
    exits::directory(DirectoryError::Store(error))
}

fn import(args: &ImportArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, shared) = connect(&args.directory.dir)?;
    // A process that serves it would change it meanwhile.
    let _lock = directory.lock().map_err(exits::directory)?;
    let imported = shared.import(args.replace).map_err(failed)?;
    printer.result(&imported, || {
        format!("{} files, {} bytes", imported.files, imported.bytes)
    });
    Ok(())
}

fn check(args: &StoreArgs, printer: &Printer) -> Result<(), Failure> {
    let (_, shared) = connect(&args.dir)?;
    let checked = shared.check().map_err(failed)?;
    let document = json!({
        "same": checked.differences.is_empty(),
        "differences": checked.differences,
        "files": checked.files,
        "masked_updates": checked.masked_updates,
        "loose_objects": checked.loose_objects,
        "unknown_objects": checked.unknown_objects,
        "served_by": checked.served_by,
    });
    printer.result(&document, || {
        let mut lines: Vec<_> = checked
            .differences
            .iter()
            .map(|one| format!("{}: {}", one.path, one.kind.words()))
            .collect();
        if checked.differences.is_empty() {
            lines.push("the directory is what the database says".to_owned());
        }
        if checked.masked_updates > 0 {
            let count = checked.masked_updates;
            lines.push(format!(
                "{count} masked updates, of a round that is open or was kept"
            ));
        }
        if checked.unknown_objects > 0 {
            let count = checked.unknown_objects;
            lines.push(format!(
                "{count} objects that no file names: `serve` deletes them"
            ));
        }
        lines.push(match &checked.served_by {
            Some(host) => format!("served by {host}"),
            None => "served by nobody".to_owned(),
        });
        lines.join("\n")
    });
    match checked.differences.len() {
        0 => Ok(()),
        count => Err(Failure::new(
            Exit::Integrity,
            anyhow!("{count} files differ between directory and database"),
        )
        .with_hint("`serve` makes the directory what the database says")),
    }
}
