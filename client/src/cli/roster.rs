//! `fedlora roster`: the members that this member has accepted, or is to accept.

use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::digest::Digest;
use fedlora_common::exit::Exit;
use fedlora_protocol::plan::{Roster, RosterChange, RosterSheet};
use fedlora_protocol::round::member::{PinError, RosterPin};
use fedlora_shell::{Failure, Printer};
use serde::Serialize;

use super::exits;
use crate::directory::MemberDirectory;
use crate::roster_pin::KnownRosters;

/// Options of `fedlora roster`.
#[derive(Debug, clap::Args)]
pub(super) struct RosterArgs {
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// Accept the roster that waits, which has this digest.
    #[arg(long, value_name = "DIGEST")]
    accept: Option<Digest>,
}

/// The document: the roster that waits for consent, or else the accepted one.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    sheet: RosterSheet,
    /// Whether this member has accepted this roster.
    accepted: bool,
}

/// Runs the command.
pub(super) fn run(args: &RosterArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, _) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    let failed = |error: PinError| Failure::new(Exit::Failed, error);
    let mut pin = directory.roster_pin(None);
    let mut known = pin.known().map_err(failed)?;
    if let Some(digest) = args.accept {
        let Some(pending) = known.pending.filter(|roster| roster.digest() == digest) else {
            return Err(Failure::new(
                Exit::Failed,
                anyhow!("no roster with the digest {digest} waits to be accepted"),
            )
            .with_hint("`fedlora roster` shows the one that waits, if there is one"));
        };
        pin.accept(&pending).map_err(failed)?;
        known = pin.known().map_err(failed)?;
    }
    let Some((roster, state)) = shown(&known) else {
        return Err(exits::no_roster());
    };
    let document = Document {
        sheet: RosterSheet::of(roster),
        accepted: known.pending.is_none(),
    };
    printer.result(&document, || format!("{}\nstate   {state}", document.sheet));
    Ok(())
}

/// The roster to show, and what it is to this member.
fn shown(known: &KnownRosters) -> Option<(&Roster, String)> {
    match (&known.accepted, &known.pending) {
        (Some(accepted), Some(pending)) => {
            let change = RosterChange::between(accepted, pending);
            Some((pending, format!("not accepted; {change}")))
        }
        (None, Some(pending)) => Some((pending, "not accepted".to_owned())),
        (Some(accepted), None) => Some((accepted, "accepted".to_owned())),
        (None, None) => None,
    }
}
