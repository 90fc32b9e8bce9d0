//! `fedlora join`: redeems an invitation.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use fedlora_common::exit::Exit;
use fedlora_protocol::wire::token::{InviteToken, TokenError};
use fedlora_shell::{Failure, Printer, now};
use fedlora_transport::TransportChoice;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::TransportArgs;
use super::exits;
use crate::directory::MemberDirectory;
use crate::enrol;

/// Options of `fedlora join`.
#[derive(Debug, clap::Args)]
pub(super) struct JoinArgs {
    /// The invitation, as the operator printed it; `-` reads it from standard input.
    // Text: a value that does not parse would be repeated, with its secret.
    token: Option<String>,
    /// A file that holds the invitation: on the command line other users of the machine see it.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The member's directory, which must not hold a membership yet.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    #[command(flatten)]
    transport: TransportArgs,
}

/// The invitation, from where the user has it.
fn token(args: &JoinArgs) -> Result<InviteToken, Failure> {
    let text = match (&args.token_file, args.token.as_deref()) {
        (Some(path), _) => std::fs::read_to_string(path)
            .with_context(|| path.display().to_string())
            .map_err(|error| Failure::new(Exit::Failed, error))?,
        (None, Some("-")) => std::io::read_to_string(std::io::stdin())
            .context("standard input")
            .map_err(|error| Failure::new(Exit::Failed, error))?,
        (None, Some(token)) => token.to_owned(),
        (None, None) => {
            let error = anyhow!("no invitation is given");
            let hint = "name the file that holds it with --token-file, or `-` for standard input";
            return Err(Failure::new(Exit::Usage, error).with_hint_if(Some(hint.to_owned())));
        }
    };
    let text = Zeroizing::new(text);
    text.parse()
        .map_err(|error: TokenError| Failure::new(Exit::Usage, error))
}

/// Runs the command.
pub(super) async fn run(args: &JoinArgs, printer: &Printer) -> Result<(), Failure> {
    let token = token(args)?;
    let auto = TransportChoice::default();
    let transport = args.transport.resolve(auto, &token.address, printer)?;
    let joined = enrol::join(&token, &args.dir, now(), transport).await;
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
             aggregator   {}\nruns at      {} (UDP, or TCP)",
            config.name,
            config.federation,
            config.aggregator.fingerprint(),
            config.address
        )
    });
    Ok(())
}
