//! `fedlora-aggregator watch`: the status as it changes.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use fedlora_common::clock::Timestamp;
use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer, now, stdout_is_rich};

use super::exits;
use crate::directory::Directory;
use crate::status::{RunState, Status};

/// How often the status is read.
const TICK: Duration = Duration::from_secs(1);
/// Moves to the terminal's first column and row, and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Options of `fedlora-aggregator watch`.
#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Runs the command: until the run is over, or the reader has gone.
pub(super) async fn run(args: &WatchArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, opened) = Directory::open(&args.dir).map_err(exits::directory)?;
    let path = directory.status_path();
    let redraws = printer.is_text() && stdout_is_rich();
    let mut shown = None;
    loop {
        let status = Status::read(&path)
            .with_context(|| path.display().to_string())
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        let served = directory.is_served().map_err(exits::directory)?;
        let status = status.map(|status| if served { status } else { status.unserved() });
        let still = status.as_ref().map(Status::standing_still);
        let changed = shown.as_ref() != Some(&still);
        if redraws || changed {
            let read = match &status {
                Some(status) if printer.is_text() => {
                    let text = match redraws {
                        true => format!("{CLEAR}{}", status.page(now())),
                        false => status.summary(now()),
                    };
                    printer.write(|out| writeln!(out, "{text}"))
                }
                // Read from a file, with the version of its form.
                Some(status) => printer.write(|out| {
                    serde_json::to_writer(&mut *out, status)?;
                    writeln!(out)
                }),
                None => {
                    let federation = &opened.config.federation;
                    printer.note(&format!("{federation}: no run was served yet"));
                    true
                }
            };
            if !read {
                return Ok(());
            }
            shown = Some(still);
        }
        if status.is_some_and(|status| status.is_over()) {
            return Ok(());
        }
        tokio::time::sleep(TICK).await;
    }
}

impl Status {
    fn is_over(&self) -> bool {
        matches!(self.state, RunState::Finished | RunState::Failed)
    }

    /// The status without what changes all the time: two that are equal so say the same.
    fn standing_still(&self) -> Self {
        let mut still = self.clone();
        still.updated = Timestamp::default();
        (still.bytes_received, still.bytes_sent) = (0, 0);
        for member in &mut still.members {
            member.last_seen = None;
        }
        if let Some(stage) = &mut still.stage {
            stage.until = Timestamp::default();
        }
        still
    }
}
