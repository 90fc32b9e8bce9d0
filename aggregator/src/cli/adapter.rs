//! `fedlora-aggregator adapter`: the published adapters of all runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use fedlora_common::clock::Timestamp;
use fedlora_common::exit::Exit;
use fedlora_protocol::ids::MemberName;
use fedlora_shell::{Failure, Printer};
use serde::Serialize;
use serde_json::{Value, json};

use super::exits;
use crate::adapters::{
    self, Adapters, ExportError, Exported, PruneError, PruneRule, Pruned, PublishedAdapter,
};
use crate::audit_log::{self, Event, LogError, LoggedAdapter, PrunedBy};
use crate::clock::{Clock, SystemClock};
use crate::directory::{Directory, DirectoryError};
use crate::run_record::RunRecordError;
use crate::status::words::bytes;
use crate::store::Store;

/// The commands of `fedlora-aggregator adapter`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum AdapterCommand {
    /// List the adapters of all runs: digest, run, round, loss, which is a run's result.
    #[command(after_help = "Example:\n  fedlora-aggregator adapter list --dir ~/operator")]
    List(DirArgs),
    /// Show one adapter: where it came of, who is in its sum, who signed it.
    #[command(after_help = "Example:\n  fedlora-aggregator adapter show 1f0c9a --dir ~/operator")]
    Show(OneArgs),
    /// Export an adapter as a PEFT folder, with the signed results that prove it in `fedlora/`. What was
    /// written is verified.
    #[command(
        after_help = "Example:\n  fedlora-aggregator adapter export 1f0c9a --dir ~/operator --out ~/adapter"
    )]
    Export(ExportArgs),
    /// Verify an exported adapter: the chain of signatures, and that the files are what it names. Needs no
    /// keys.
    #[command(after_help = "Example:\n  fedlora-aggregator adapter verify ~/adapter")]
    Verify(VerifyArgs),
    /// Put an earlier adapter in the place of an exported one. Signed results stay as they are.
    #[command(
        after_help = "Example:\n  fedlora-aggregator adapter rollback ~/adapter --dir ~/operator"
    )]
    Rollback(RollbackArgs),
    /// Remove the files of adapters of runs that are over. A run's result and its newest adapter stay, and
    /// all signed results.
    #[command(
        after_help = "Example:\n  fedlora-aggregator adapter prune --dir ~/operator --keep 3 --dry-run"
    )]
    Prune(PruneArgs),
}

/// The operator's directory.
#[derive(Debug, clap::Args)]
pub(super) struct DirArgs {
    /// The operator's directory, or a folder with a copy of its runs.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// One of the adapters.
#[derive(Debug, clap::Args)]
pub(super) struct OneArgs {
    /// The adapter's digest, or as much of its beginning as tells it from the others.
    adapter: String,
    #[command(flatten)]
    directory: DirArgs,
}

/// Options of `adapter export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The folder to make.
    #[arg(long)]
    out: PathBuf,
}

/// Options of `adapter verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The folder of the exported adapter.
    folder: PathBuf,
}

/// Options of `adapter rollback`.
#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// The folder of the exported adapter.
    folder: PathBuf,
    #[command(flatten)]
    directory: DirArgs,
    /// The adapter to put there, by the beginning of its digest [default: the one of an earlier round of
    /// its run that is there].
    #[arg(long, value_name = "ADAPTER")]
    to: Option<String>,
}

/// Options of `adapter prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    /// How many of each run's newest rounds keep their adapters.
    #[arg(long, value_name = "ROUNDS")]
    keep: u32,
    /// Leave runs alone that ended fewer days ago.
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    days: u64,
    /// Only tell what would go.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub(super) fn run(command: &AdapterCommand, printer: &Printer) -> Result<(), Failure> {
    match command {
        AdapterCommand::List(args) => list(args, printer),
        AdapterCommand::Show(args) => show(args, printer),
        AdapterCommand::Export(args) => export(args, printer),
        AdapterCommand::Verify(args) => verify(&args.folder, printer),
        AdapterCommand::Rollback(args) => rollback(args, printer),
        AdapterCommand::Prune(args) => prune(args, printer),
    }
}

fn read(args: &DirArgs, printer: &Printer) -> Result<(Store, Adapters), Failure> {
    let store = Store::folder(&args.dir);
    let read = Adapters::read(&store).map_err(|(path, error)| {
        Failure::new(Exit::Failed, anyhow!("{}: {error}", path.display()))
    })?;
    for (run, why) in &read.unreadable {
        printer.note(&format!("run {run} is left out: {why}"));
    }
    Ok((store, read))
}

fn find<'a>(adapters: &'a Adapters, digest: &str) -> Result<&'a PublishedAdapter, Failure> {
    adapters.find(digest).map_err(|error| {
        Failure::new(Exit::Failed, error).with_hint("`fedlora-aggregator adapter list` shows all")
    })
}

fn list(args: &DirArgs, printer: &Printer) -> Result<(), Failure> {
    let (_, read) = read(args, printer)?;
    printer.result(&json!({ "adapters": read.adapters }), || {
        match &read.adapters[..] {
            [] => "no adapter yet".to_owned(),
            all => all.iter().map(row).collect::<Vec<_>>().join("\n"),
        }
    });
    Ok(())
}

fn row(one: &PublishedAdapter) -> String {
    let digest = one.adapter.to_string();
    let loss = one.validation_loss.map(|loss| format!("{loss:.3}"));
    let marks = [
        (one.result, "result"),
        (one.newest, "newest"),
        (one.bytes.is_none(), "removed"),
    ];
    let marks: Vec<_> = marks
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, mark)| *mark)
        .collect();
    let line = format!(
        "{}  run {}  round {:>4}  loss {:>6}  in the sum {:>3}  {}",
        digest.get(..16).unwrap_or(&digest),
        one.run.get(..12).unwrap_or(&one.run),
        one.round,
        loss.as_deref().unwrap_or("-"),
        one.survivors.len(),
        marks.join(", ")
    );
    line.trim_end().to_owned()
}

fn show(args: &OneArgs, printer: &Printer) -> Result<(), Failure> {
    let (_, read) = read(&args.directory, printer)?;
    let one = find(&read, &args.adapter)?;
    printer.result(one, || {
        let result = match (one.result, one.run_ended) {
            (true, Some(_)) => "of its run",
            (true, None) => "of its run, as far as that has come",
            (false, _) => "no: another adapter of its run is",
        };
        let loss = one
            .validation_loss
            .map(|loss| format!("{loss:.3} nats a token"));
        let size = one.bytes.map(bytes);
        let lines = [
            ("adapter", one.adapter.to_string()),
            ("run", one.run.clone()),
            ("round", one.round.to_string()),
            ("result", result.to_owned()),
            ("base", one.base.clone()),
            ("loss", loss.unwrap_or_else(|| "not told".to_owned())),
            ("in the sum", names(&one.survivors)),
            ("dropped", names(&one.dropped)),
            ("signed by", one.signed_by.to_string()),
            ("weights", size.unwrap_or_else(|| "removed".to_owned())),
        ];
        let lines = lines.map(|(name, value)| format!("{name:<12} {value}"));
        lines.map(|line| line.trim_end().to_owned()).join("\n")
    });
    Ok(())
}

fn names(members: &[MemberName]) -> String {
    match members {
        [] => "nobody".to_owned(),
        some => some
            .iter()
            .map(MemberName::as_str)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn export(args: &ExportArgs, printer: &Printer) -> Result<(), Failure> {
    let (store, read) = read(&args.one.directory, printer)?;
    let one = find(&read, &args.one.adapter)?;
    let done = adapters::export(&store, one, &args.out).map_err(failed)?;
    told(&done, &args.out, printer);
    Ok(())
}

fn verify(folder: &Path, printer: &Printer) -> Result<(), Failure> {
    let found = adapters::exported(folder).map_err(failed)?;
    told(&found, folder, printer);
    Ok(())
}

fn rollback(args: &RollbackArgs, printer: &Printer) -> Result<(), Failure> {
    let there = adapters::exported(&args.folder).map_err(failed)?;
    let (store, read) = read(&args.directory, printer)?;
    let earlier = match &args.to {
        Some(digest) => find(&read, digest)?,
        None => {
            let mut all = read.adapters.iter().rev();
            let earlier = all
                .find(|one| one.run == there.run && one.round < there.round && one.bytes.is_some());
            earlier.ok_or_else(|| {
                let (round, run) = (there.round, &there.run);
                Failure::new(
                    Exit::Failed,
                    anyhow!("no adapter before round {round} of run {run} is there"),
                )
                .with_hint("name one of another run with --to")
            })?
        }
    };
    log_rollback(&args.directory.dir, earlier, &there, printer)?;
    let done = adapters::replace(&store, earlier, &args.folder).map_err(failed)?;
    told(&done, &args.folder, printer);
    Ok(())
}

/// Notes in the operator's audit log which adapter is put in place: no retention removes it from here on.
/// A folder with a copy of the runs has no log.
fn log_rollback(
    dir: &Path,
    earlier: &PublishedAdapter,
    there: &Exported,
    printer: &Printer,
) -> Result<(), Failure> {
    let (directory, opened) = match Directory::open_to_change(dir) {
        Ok(opened) => opened,
        Err(DirectoryError::NotInitialised { .. }) => {
            printer.note(&"note: this is a copy of the runs, which has no audit log to note it in");
            return Ok(());
        }
        Err(error) => return Err(exits::directory(error)),
    };
    let event = Event::RolledBack {
        run: earlier.run.clone(),
        adapter: LoggedAdapter {
            round: earlier.round,
            adapter: earlier.adapter,
        },
        replaced: there.adapter,
    };
    let (store, now) = (directory.store(), SystemClock.now());
    let noted = audit_log::append(store, &opened.identity, now, event);
    noted.map_err(|error| prune_failed(error.into()))
}

/// Tells what an exported folder holds.
fn told(done: &Exported, folder: &Path, printer: &Printer) {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        exported: &'a Exported,
        adapter_dir: &'a Path,
    }
    let document = Document {
        exported: done,
        adapter_dir: folder,
    };
    printer.result(&document, || {
        format!(
            "adapter      {}\nrun          {}\nround        {}\nsigned by    {}\nroster       {}\n\
             folder       {}",
            done.adapter,
            done.run,
            done.round,
            done.signed_by,
            done.roster,
            folder.display()
        )
    });
}

fn prune(args: &PruneArgs, printer: &Printer) -> Result<(), Failure> {
    // Whatever mirrors the operator's directory hears of what goes.
    let opened = match args.dry_run {
        true => Directory::open(&args.dir),
        false => Directory::open_to_change(&args.dir),
    };
    let (directory, opened) = opened.map_err(exits::directory)?;
    let days = Duration::from_secs(args.days.saturating_mul(86_400));
    let now = SystemClock.now();
    let before = Timestamp(now.0.saturating_sub(days.as_millis() as u64));
    let rule = PruneRule::adapters(args.keep, before);
    let (store, key) = (directory.store(), &opened.identity);
    let pruned = match args.dry_run {
        true => adapters::would_prune(store, key, &rule),
        false => adapters::prune(store, key, &rule, (PrunedBy::Command, now)),
    };
    let pruned = pruned.map_err(prune_failed)?;
    print_pruned(&pruned, &json!({}), args.dry_run, printer);
    Ok(())
}

/// Nothing more is removed.
pub(super) fn prune_failed(error: PruneError) -> Failure {
    let exit = match &error {
        PruneError::Log(LogError::Broken { .. }) => Exit::Integrity,
        PruneError::Log(LogError::Io { .. } | LogError::Missing { .. }) | PruneError::Io { .. } => {
            Exit::Failed
        }
    };
    Failure::new(exit, error)
}

/// Prints what went, or would go, with the fields of `more` in the document.
pub(super) fn print_pruned(pruned: &Pruned, more: &Value, dry_run: bool, printer: &Printer) {
    for (run, why) in &pruned.left {
        printer.note(&format!("run {run} is left as it is: {why}"));
    }
    let mut document = json!({
        "removed": pruned.removed,
        "others": pruned.others,
        "bytes": pruned.bytes,
        "dry_run": dry_run,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        document[name] = value.clone();
    }
    printer.result(&document, || {
        let mut lines: Vec<_> = pruned.removed.iter().map(row).collect();
        lines.extend(pruned.others.iter().cloned());
        let what = if dry_run { "would go" } else { "are gone" };
        let (adapters, others) = (pruned.removed.len(), pruned.others.len());
        let bytes = bytes(pruned.bytes);
        lines.push(match others {
            0 => format!("{adapters} adapters {what}, {bytes}"),
            _ => format!("{adapters} adapters and {others} other files or folders {what}, {bytes}"),
        });
        lines.join("\n")
    });
}

fn failed(error: ExportError) -> Failure {
    let exit = match &error {
        ExportError::OtherAdapter { .. }
        | ExportError::Receipt { .. }
        | ExportError::Run(RunRecordError::Receipt(_)) => Exit::Integrity,
        _ => Exit::Failed,
    };
    Failure::new(exit, error)
}
