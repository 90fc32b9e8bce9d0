//! `fedlora-aggregator status`: how far a run is.

use std::path::PathBuf;

use anyhow::Context;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Format, Printer};
use serde_json::json;

use super::exits;
use crate::directory::Directory;
use crate::status::{RunState, Status};

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
        (Format::Text, Some(status)) => printer.data(&text(&status)),
        (_, None) => printer.result(&json!({"federation": federation, "state": null}), || {
            format!("{federation}: no run was served yet")
        }),
    }
    Ok(())
}

fn text(status: &Status) -> String {
    let state = match status.state {
        RunState::Gathering => "waiting for members".to_owned(),
        RunState::Running => match &status.phase {
            Some(phase) => format!("round {}, {phase}", status.rounds_done + 1),
            None => "between rounds".to_owned(),
        },
        RunState::Stopped => match &status.phase {
            Some(phase) => format!(
                "stopped in round {}, {phase}: the same `serve` goes on with it",
                status.rounds_done + 1
            ),
            None => "stopped: no process serves it".to_owned(),
        },
        RunState::Finished if status.stopped_early => {
            "finished early: the pooled validation loss no longer improved".to_owned()
        }
        RunState::Finished => "finished".to_owned(),
        RunState::Failed => format!(
            "failed: {}",
            status.failure.as_deref().unwrap_or("no reason is known")
        ),
    };
    let mut lines = vec![
        format!("federation   {}", status.federation),
        format!("run          {}", status.run),
        format!("state        {state}"),
        format!(
            "rounds       {} of {}",
            status.rounds_done, status.rounds_planned
        ),
    ];
    match status.best_round {
        Some(0) => lines.push("result       the first adapter, by the pooled losses".to_owned()),
        Some(round) if round < status.rounds_done => {
            lines.push(format!(
                "result       the adapter of round {round}, by the pooled losses"
            ));
        }
        _ => {}
    }
    if status.rounds_scaled > 0 {
        lines.push(format!(
            "scaled       the steps of {} rounds, down to the plan's largest",
            status.rounds_scaled
        ));
    }
    if status.rounds_taken_back > 0 {
        lines.push(format!(
            "taken back   {} of the steps, by the votes of most members",
            status.rounds_taken_back
        ));
    }
    lines.extend(status.members.iter().map(|member| {
        let link = match member.connected {
            true => "connected",
            false => "away",
        };
        format!(
            "member       {:<24} {link:<10} in {} rounds",
            member.name, member.rounds
        )
    }));
    lines.join("\n")
}
