//! `fedlora leave`: ends this member's membership for good.

use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_protocol::wire::session::Purpose;
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::args::TransportArgs;
use super::exits;
use crate::directory::MemberDirectory;
use crate::federation::{Connector, LinkError, NetworkConnector, ParticipantError};

/// Options of `fedlora leave`.
#[derive(Debug, clap::Args)]
pub(super) struct LeaveArgs {
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// Leave: without this, only what it would mean is said.
    #[arg(long)]
    yes: bool,
    /// Do not ask the aggregator, which is gone or has removed this member already.
    #[arg(long)]
    only_here: bool,
    #[command(flatten)]
    transport: TransportArgs,
}

/// Runs the command.
pub(super) async fn run(args: &LeaveArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, mut membership) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    // A process that takes part would be cut off in the middle of a round.
    let _lock = directory.lock().map_err(exits::directory)?;
    let (name, federation) = (
        membership.config.name.clone(),
        membership.config.federation.clone(),
    );
    if !args.yes {
        let error = anyhow!(
            "leaving {federation} ends the membership of {name} for good: its keys here are deleted, and \
             only another invitation brings it back"
        );
        return Err(exits::usage(error).with_hint("add --yes to leave"));
    }
    if !args.only_here {
        let proxy = args.transport.apply(&mut membership, printer)?;
        let connector = NetworkConnector::of(membership).with_proxy(proxy);
        tell(&connector).await.map_err(failure)?;
    }
    directory.end_membership().map_err(exits::directory)?;
    let document = json!({ "member": name, "federation": federation, "told": !args.only_here });
    printer.result(&document, || {
        format!(
            "{name} has left {federation}; adapters and receipts stay in {}",
            args.dir.display()
        )
    });
    Ok(())
}

/// Asks the aggregator to remove this member, and waits until it has.
async fn tell(connector: &NetworkConnector) -> Result<(), LinkError> {
    let mut link = connector.open(Purpose::Leave).await?;
    let answered = link.next().await;
    match answered? {
        // It ends the stream once the member is removed.
        None => Ok(()),
        Some(_) => Err(LinkError::Refused {
            reason: "it answers something else than that the member has left".to_owned(),
        }),
    }
}

fn failure(error: LinkError) -> Failure {
    exits::participant(ParticipantError::Link(error)).with_hint(
        "where the aggregator is gone, or has removed this member, --only-here ends the membership \
         here alone",
    )
}
