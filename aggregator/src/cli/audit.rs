//! `fedlora-aggregator audit`: a round once more, and evidence against members.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::RoundNumber;
use fedlora_shell::{Failure, Printer};
use serde::Serialize;

use super::exits;
use crate::audit::{self, EvidenceVerdict, ReplayReport};
use crate::run_directory::RunDirectory;
use crate::store::Store;

/// The commands of `fedlora-aggregator audit`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Replay a round from what was kept of it, and compare it with the signed result.
    ///
    /// Every signature is verified again, the masked updates are added, the masks come off, and
    /// sum, adapter and transcript are compared bit for bit. The round must have been served with
    /// --keep-for-audit.
    #[command(
        after_help = "Example:\n  fedlora-aggregator audit replay --dir ~/operator --round 1 --format json"
    )]
    Replay(ReplayArgs),
    /// Verify a run's signed results and published adapters; print the words that members compare.
    ///
    /// Plan, roster and results are a chain of signatures. Any change, gap or reorder is found and
    /// named. `fedlora runs` shows a member's own words: they must be the same.
    #[command(
        after_help = "Example:\n  fedlora-aggregator audit verify --dir ~/operator --format json"
    )]
    Verify(VerifyArgs),
    /// Show the log of all changes of the directory, and verify it.
    ///
    /// Each line names a change, holds the digest of the line before and is signed. What the directory
    /// holds must be what the log leads to: any edit, cut or reorder is found and named.
    #[command(
        after_help = "Example:\n  fedlora-aggregator audit log --dir ~/operator --anchor /mnt/worm/heads"
    )]
    Log(super::audit_log::LogArgs),
    /// Check evidence that a member broke the protocol against the roster of its run.
    #[command(
        after_help = "Example:\n  fedlora-aggregator audit evidence --dir ~/operator ~/operator/runs/ID/evidence/round-0001-attempt-1-member-3.json"
    )]
    Evidence(EvidenceArgs),
}

/// Options of `fedlora-aggregator audit replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// The operator's directory, or a folder with a copy of its runs.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The run [default: the only one].
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The round, from 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    round: u32,
    /// Take a record without masked updates, adapters or server states too: what is there must
    /// match.
    #[arg(long)]
    partial: bool,
}

/// Options of `fedlora-aggregator audit verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The operator's directory, or a folder with a copy of its runs.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The run [default: the only one].
    #[arg(long, value_name = "ID")]
    run: Option<String>,
}

/// Options of `fedlora-aggregator audit evidence`.
#[derive(Debug, clap::Args)]
pub(super) struct EvidenceArgs {
    /// The operator's directory, or a folder with a copy of its runs.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// The evidence (JSON).
    file: PathBuf,
}

/// Runs the command.
pub(super) fn run(command: &AuditCommand, printer: &Printer) -> Result<(), Failure> {
    match command {
        AuditCommand::Replay(args) => replay(args, printer),
        AuditCommand::Verify(args) => verify(args, printer),
        AuditCommand::Log(args) => super::audit_log::run(args, printer),
        AuditCommand::Evidence(args) => evidence(args, printer),
    }
}

/// A report, and whether the command ends well with it.
#[derive(Debug, Serialize)]
struct Replayed<'a> {
    #[serde(flatten)]
    report: &'a ReplayReport,
    ok: bool,
}

fn replay(args: &ReplayArgs, printer: &Printer) -> Result<(), Failure> {
    let directory = RunDirectory::find(&Store::folder(&args.dir), args.run.as_deref())
        .map_err(|error| exits::audit(error.into()))?;
    let report = audit::replay(&directory, RoundNumber(args.round)).map_err(exits::audit)?;
    let ok = report.matches() && (args.partial || report.is_whole());
    let document = Replayed {
        report: &report,
        ok,
    };
    printer.result(&document, || text(&report));
    let round = args.round;
    match (ok, report.matches()) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::new(
            Exit::Integrity,
            anyhow!("what is left of round {round} matches, but not all of it is there"),
        )
        .with_hint("take what is there with --partial")),
        (false, false) => Err(Failure::new(
            Exit::Integrity,
            anyhow!("round {round} is not what its record gives"),
        )),
    }
}

fn text(report: &ReplayReport) -> String {
    let mut text = String::new();
    let survivors: Vec<_> = report.survivors.iter().map(ToString::to_string).collect();
    let rows = [
        ("run", report.run.clone()),
        (
            "round",
            format!("{}, attempt {}", report.round, report.attempt),
        ),
        ("aggregator", report.aggregator.to_string()),
        ("roster", report.roster.to_string()),
        ("members", report.members.to_string()),
        ("survivors", survivors.join(" ")),
        ("events", report.events.to_string()),
        ("signatures", format!("{} verified", report.signatures)),
        ("participation", report.participation.to_string()),
        ("transcript", report.transcript.to_string()),
        ("sum", report.sum.to_string()),
        ("losses", report.losses.to_string()),
        ("adapter", report.adapter.to_string()),
    ];
    let faults = report.faults.iter().map(|fault| ("fault", fault.clone()));
    let findings = report.findings.iter();
    let findings = findings.map(|finding| ("finding", finding.to_string()));
    for (name, value) in rows.into_iter().chain(faults).chain(findings) {
        let _ = writeln!(text, "{name:<13} {value}");
    }
    text.truncate(text.trim_end().len());
    report.names.naming(&text)
}

fn verify(args: &VerifyArgs, printer: &Printer) -> Result<(), Failure> {
    let directory = RunDirectory::find(&Store::folder(&args.dir), args.run.as_deref())
        .map_err(|error| exits::audit(error.into()))?;
    let report = audit::verify(&directory).map_err(exits::audit)?;
    printer.result(&report, || {
        format!(
            "run        {}\nrounds     {} of {}\nadapters   {}\nhead       {}\nwords      {}",
            report.run, report.rounds, report.planned, report.adapters, report.head, report.words
        )
    });
    Ok(())
}

fn evidence(args: &EvidenceArgs, printer: &Printer) -> Result<(), Failure> {
    let verdict =
        audit::check_evidence(&Store::folder(&args.dir), &args.file).map_err(exits::audit)?;
    printer.result(&verdict, || sentence(&verdict));
    match &verdict.reason {
        None => Ok(()),
        Some(reason) => Err(Failure::new(
            Exit::Integrity,
            anyhow!("the evidence proves nothing: {reason}"),
        )),
    }
}

fn sentence(verdict: &EvidenceVerdict) -> String {
    let EvidenceVerdict {
        run,
        round,
        attempt,
        roster,
        member,
        breach,
        reason,
        ..
    } = verdict;
    let what = match (member, reason) {
        (Some(member), _) => format!("{member} {breach}"),
        (None, Some(reason)) => format!("nothing is proven: {reason}"),
        (None, None) => "nothing is proven".to_owned(),
    };
    format!(
        "run           {run}\nround         {round}, attempt {attempt}\nroster        {roster}\nverdict       {what}"
    )
}
