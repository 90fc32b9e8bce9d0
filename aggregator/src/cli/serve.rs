//! `fedlora-aggregator serve`: serves a run.

use std::path::PathBuf;

use std::sync::Arc;

use anyhow::Context;
use fedlora_protocol::plan::RunPlan;
use fedlora_shell::{Failure, Printer};
use serde_json::json;
use tokio::sync::mpsc;

use super::exits;
use crate::clock::SystemClock;
use crate::daemon::Aggregator;
use crate::engine::RunEvent;

/// Options of `fedlora-aggregator serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The run plan (TOML).
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
}

/// Runs the command.
pub(super) async fn run(args: &ServeArgs, printer: &Printer) -> Result<(), Failure> {
    let path = args.plan.display();
    let text = std::fs::read_to_string(&args.plan)
        .with_context(|| format!("the plan {path} cannot be read"))
        .map_err(exits::configuration)?;
    let plan = RunPlan::from_toml(&text)
        .with_context(|| path.to_string())
        .map_err(exits::configuration)?;
    let aggregator = Aggregator::bind(&args.dir, Arc::new(SystemClock)).map_err(exits::serve)?;
    let (events, mut watched) = mpsc::unbounded_channel();
    let run = aggregator.run(plan, events).await.map_err(exits::serve)?;
    let mut last = None;
    while let Ok(event) = watched.try_recv() {
        if let RunEvent::RoundDone { result, folder, .. } = event {
            last = Some((result, folder));
        }
    }
    if let Some((result, folder)) = last {
        let document = json!({
            "run": run.to_string(),
            "rounds": result.round,
            "adapter": result.adapter,
            "adapter_dir": folder,
        });
        printer.result(&document, || folder.display());
    }
    Ok(())
}
