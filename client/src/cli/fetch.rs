//! `fedlora fetch`: an adapter that the aggregator has published.

use std::path::PathBuf;

use fedlora_common::exit::Exit;
use fedlora_protocol::ids::{RoundNumber, RunId};
use fedlora_shell::{Failure, Printer};
use serde_json::json;

use super::args::TransportArgs;
use super::exits;
use crate::directory::MemberDirectory;
use crate::federation::{LinkError, NetworkConnector, ParticipantError};
use crate::fetch::{FetchError, PublishedRun};

/// Options of `fedlora fetch`.
#[derive(Debug, clap::Args)]
pub(super) struct FetchArgs {
    /// The run; the one that was begun last by default.
    run: Option<RunId>,
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The round whose adapter is fetched; by default the one that is the run's result.
    #[arg(long)]
    round: Option<u32>,
    /// The folder for the adapter, in PEFT's form. Without it, only what there is is shown.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    transport: TransportArgs,
}

/// Runs the command.
pub(super) async fn run(args: &FetchArgs, printer: &Printer) -> Result<(), Failure> {
    let (directory, mut membership) = MemberDirectory::open(&args.dir).map_err(exits::directory)?;
    let proxy = args.transport.apply(&mut membership, printer)?;
    let aggregator = membership.config.aggregator;
    let connector = NetworkConnector::of(membership).with_proxy(proxy);
    let published = PublishedRun::read(&connector, &aggregator, args.run).await;
    let published = published.map_err(failure)?;
    published.compare(&directory.runs()).map_err(failure)?;
    let round = args
        .round
        .map_or_else(|| published.result_round(), RoundNumber);
    let saved = match &args.out {
        Some(out) => Some(published.save(round, out).await.map_err(failure)?),
        None => None,
    };
    let named = published
        .results
        .iter()
        .find(|result| result.round == round);
    let adapter = saved.or(named.map(|result| result.adapter));
    let members = published.roster.entries().iter();
    let document = json!({
        "run": published.run.to_string(),
        "over": published.over,
        "failure": published.failure,
        "rounds": published.results.len(),
        "rounds_planned": published.plan.rounds,
        "members": members.map(|entry| &entry.name).collect::<Vec<_>>(),
        "round": round,
        "adapter": adapter,
        "adapter_dir": args.out,
    });
    printer.result(&document, || {
        let state = match (&published.failure, published.over) {
            (Some(failure), _) => format!("ended early: {failure}"),
            (None, true) => "over".to_owned(),
            (None, false) => "goes on".to_owned(),
        };
        let mut lines = vec![
            format!("run          {}", published.run),
            format!("state        {state}"),
            format!(
                "rounds       {} of {}",
                published.results.len(),
                published.plan.rounds
            ),
        ];
        if let Some(adapter) = adapter {
            lines.push(format!("adapter      {adapter} (round {round})"));
        }
        lines.extend(args.out.as_ref().map(|out| out.display().to_string()));
        lines.join("\n")
    });
    published.finish().await;
    Ok(())
}

fn failure(error: FetchError) -> Failure {
    let exit = match error {
        FetchError::Link(LinkError::Refused { .. }) | FetchError::Save(_) => Exit::Failed,
        FetchError::Link(error) => return exits::participant(ParticipantError::Link(error)),
        FetchError::Refused { .. } | FetchError::NeverBegan { .. } | FetchError::NoRound { .. } => {
            Exit::Failed
        }
        FetchError::Plan(_)
        | FetchError::OtherRun { .. }
        | FetchError::OtherHistory { .. }
        | FetchError::Chain { .. }
        | FetchError::Signature { .. }
        | FetchError::OtherAdapter { .. }
        | FetchError::Adapter(_) => Exit::Integrity,
    };
    Failure::new(exit, error)
}
