//! `fedlora join`: redeems an invitation.

use std::path::PathBuf;

use fedlora_protocol::wire::token::InviteToken;
use fedlora_shell::{Failure, Printer, now};
use serde_json::json;

use super::exits;
use crate::directory::MemberDirectory;
use crate::enrol;

/// Options of `fedlora join`.
#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// The invitation, as the operator printed it.
    token: InviteToken,
    /// The member's directory, which must not hold a membership yet.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Runs the command.
pub(super) async fn run(args: &JoinArgs, printer: &Printer) -> Result<(), Failure> {
    let joined = enrol::join(&args.token, &args.dir, now()).await;
    let config = joined.map_err(exits::join)?;
    let (_, membership) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    let fingerprint = membership.identity.public().fingerprint();
    let document = json!({
        "member": config.name,
        "federation": config.federation,
        "identity": fingerprint,
        "aggregator": config.aggregator.fingerprint(),
        "address": config.address,
    });
    printer.result(&document, || {
        format!(
            "member       {}\nfederation   {}\nidentity     {fingerprint}\n\
             aggregator   {}\nruns at      {} (UDP)",
            config.name,
            config.federation,
            config.aggregator.fingerprint(),
            config.address
        )
    });
    Ok(())
}
