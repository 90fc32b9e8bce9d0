//! `fedlora status`, `pause` and `resume`: what this member's agent does.

use std::path::PathBuf;

use fedlora_common::exit::Exit;
use fedlora_shell::{Failure, Printer, now};
use fedlora_transport::Peer;
use serde_json::json;
use tracing::warn;

use super::exits;
use crate::certificate::{CertificateNotice, day};
use crate::directory::MemberDirectory;

/// Options of these commands.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Shows the state.
pub(super) fn run(args: &StatusArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, membership) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    let certificate = membership.credentials.certificate();
    let peer = Peer::from_certificate(certificate);
    let end = peer
        .map_err(|error| Failure::new(Exit::Failed, error))?
        .not_after;
    let config = membership.config;
    let files = directory.agent();
    let is_running = directory.is_in_use().map_err(exits::directory)?;
    let state = files.state().map_err(failed)?;
    let document = json!({
        "member": config.name,
        "federation": config.federation,
        "address": config.address,
        "running": is_running,
        "paused": files.is_paused(),
        "certificate_end": end,
        "agent": state,
    });
    printer.result(&document, || {
        let mut lines = vec![
            format!("member       {}", config.name),
            format!("federation   {} at {}", config.federation, config.address),
        ];
        let state = state.filter(|_| is_running);
        lines.push(match (&state, is_running) {
            (Some(state), _) => {
                let run = state.run.as_ref().map(|run| format!(", run {run}"));
                let detail = state.detail.as_ref().map(|detail| format!(": {detail}"));
                format!(
                    "state        {}{}{}",
                    state.phase.words(),
                    run.unwrap_or_default(),
                    detail.unwrap_or_default()
                )
            }
            (None, true) => "state        a process takes part".to_owned(),
            (None, false) => "state        nothing runs here".to_owned(),
        });
        if files.is_paused() {
            lines.push("paused       no run is begun: `fedlora resume`".to_owned());
        }
        lines.push(format!("certificate  valid until {}", day(end)));
        lines.join("\n")
    });
    if let Some(notice) = CertificateNotice::of(end, now()) {
        warn!("{notice}");
    }
    Ok(())
}

/// Begins no run from now on, or begins runs again.
pub(super) fn set_paused(
    args: &StatusArgs,
    paused: bool,
    printer: &Printer,
) -> Result<(), Failure> {
    let (directory, _) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    directory.agent().set_paused(paused).map_err(failed)?;
    printer.result(&json!({ "paused": paused }), || match paused {
        true => "no run is begun from now on; one that goes on is not left",
        false => "runs are begun again",
    });
    Ok(())
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, error)
}
