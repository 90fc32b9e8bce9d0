//! `fedlora-aggregator retention`: what `serve` would remove now.

use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::{adapter, exits};
use crate::adapters::would_prune;
use crate::clock::{Clock, SystemClock};
use crate::directory::Directory;

/// Options of `retention`.
#[derive(Debug, clap::Args)]
pub(super) struct RetentionArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &RetentionArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.dir).map_err(exits::directory)?;
    let Some(retention) = &opened.config.retention else {
        let path = args.dir.join("aggregator.toml");
        let error = anyhow!("{} has no section [retention]", path.display());
        return Err(Failure::new(Exit::Configuration, error)
            .with_hint("add one with `days` or `runs`; without it `serve` removes nothing"));
    };
    if retention.days.is_none() && retention.runs.is_none() {
        printer.note(&"note: [retention] names neither `days` nor `runs`, so no run is ever old");
    }
    let rule = retention.rule(SystemClock.now());
    let pruned = would_prune(directory.store(), &opened.identity, &rule);
    let pruned = pruned.map_err(adapter::prune_failed)?;
    let document = json!({ "retention": retention });
    adapter::print_pruned(&pruned, &document, true, printer);
    Ok(())
}
