//! `fedlora-aggregator roster`: the members that have joined, as they compare them.

use std::path::PathBuf;

use fedlora_protocol::plan::RosterSheet;
use fedlora_shell::{Failure, Printer};

use super::exits;
use crate::directory::Directory;
use crate::registry::Registry;

/// Options of `fedlora-aggregator roster`.
#[derive(Debug, clap::Args)]
pub(super) struct RosterArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &RosterArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, _) = Directory::open(&args.dir).map_err(exits::directory)?;
    let roster = Registry::new(directory).roster().map_err(exits::registry)?;
    let sheet = RosterSheet::of(&roster);
    printer.result(&sheet, || &sheet);
    Ok(())
}
