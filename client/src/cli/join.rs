//! `fedlora join`: redeems an invitation.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use fedlora_common::exit::Exit;
use fedlora_protocol::wire::token::{InviteToken, TokenError};
use fedlora_shell::{Failure, Printer, ask_secret, now};
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
    /// The invitation, as the operator printed it; `-` reads it from standard input [default: it is
    /// asked for on the terminal, without an echo].
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
            .map(Zeroizing::new)
            .with_context(|| path.display().to_string())
            .map_err(|error| Failure::new(Exit::Failed, error))?,
        (None, Some("-")) if !io::stdin().is_terminal() => io::read_to_string(io::stdin())
            .map(Zeroizing::new)
            .context("standard input")
            .map_err(|error| Failure::new(Exit::Failed, error))?,
        (None, Some("-") | None) => asked()?,
        (None, Some(token)) => Zeroizing::new(token.to_owned()),
    };
    text.parse()
        .map_err(|error: TokenError| Failure::new(Exit::Usage, error))
}

/// The invitation that somebody types, or pastes, at the terminal. It is not shown.
fn asked() -> Result<Zeroizing<String>, Failure> {
    let typed = ask_secret("Invitation").map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::new(Exit::Interrupted, error),
        _ => Failure::new(Exit::Failed, error),
    })?;
    typed.ok_or_else(|| {
        let error = anyhow!("no invitation is given, and there is no terminal to ask for it on");
        let hint = "name the file that holds it with --token-file, or `-` for standard input";
        Failure::new(Exit::Usage, error).with_hint_if(Some(hint.to_owned()))
    })
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
