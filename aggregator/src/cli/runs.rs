//! `fedlora-aggregator run`: the queue of plans, and the runs that became of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use fedlora_common::exit::Exit;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::ids::RunId;
use fedlora_protocol::plan::RunPlan;
use fedlora_shell::{Failure, Printer};
use rand::Rng;
use serde_json::json;

use super::operator::{self, OperatorArgs};
use super::{exits, plan_notes};
use crate::adapters::{PublishedAdapter, StartError, StartingAdapter};
use crate::audit_log;
use crate::clock::{Clock, SystemClock};
use crate::directory::Directory;
use crate::operators::{Act, ActKind};
use crate::queue::QueuedPlan;
use crate::run_directory::{RunDirectory, RunEnding, clear_uploads};
use crate::run_list::{self, ListedRun, ListedState};
use crate::store::Store;

/// `fedlora-aggregator run` and its commands.
#[derive(Debug, clap::Subcommand)]
pub(super) enum RunCommand {
    /// Queue a plan: the serving aggregator carries out one after the other. Prints the run's id.
    #[command(
        after_help = "Example:\n  fedlora-aggregator run submit plan.toml --dir ~/operator\n  fedlora-aggregator run submit plan.toml --dir ~/operator --start-from 0123456789abcdef"
    )]
    Submit(SubmitArgs),
    /// List all runs: those that are over, the one that is served, those that wait.
    #[command(after_help = "Example:\n  fedlora-aggregator run list --dir ~/operator")]
    List(DirArgs),
    /// Show one run: its state, members, rounds, newest adapter.
    #[command(
        after_help = "Example:\n  fedlora-aggregator run show 0123456789abcdef0123456789abcdef --dir ~/operator"
    )]
    Show(OneRunArgs),
    /// End a run for good, or withdraw a plan that waits. Its results so far stay.
    #[command(
        after_help = "Example:\n  fedlora-aggregator run abort 0123456789abcdef0123456789abcdef \\\n    --dir ~/operator --reason 'wrong base model'"
    )]
    Abort(AbortArgs),
}

/// Options of `run list`.
#[derive(Debug, clap::Args)]
pub(super) struct DirArgs {
    /// The operator's directory.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
}

/// Options of `run submit`.
#[derive(Debug, clap::Args)]
pub(super) struct SubmitArgs {
    /// The run plan (TOML); `-` reads it from standard input.
    plan: PathBuf,
    #[command(flatten)]
    directory: DirArgs,
    /// Keep every event and every masked update that is in a sum, so that `audit replay` can
    /// recompute the rounds. Takes the disk space of all uploads of the run.
    #[arg(long)]
    keep_for_audit: bool,
    /// Begin from an adapter that an earlier run published: the newest of RUN, that of RUN:ROUND, or the one
    /// with this digest. Takes the place of the plan's `start_from`.
    #[arg(long, value_name = "RUN[:ROUND]|DIGEST")]
    start_from: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Options of `run show`.
#[derive(Debug, clap::Args)]
pub(super) struct OneRunArgs {
    /// The run's id, or as much of its beginning as tells it from the others.
    run: String,
    #[command(flatten)]
    directory: DirArgs,
}

/// Options of `run abort`.
#[derive(Debug, clap::Args)]
pub(super) struct AbortArgs {
    #[command(flatten)]
    run: OneRunArgs,
    /// The reason, which the members are told.
    #[arg(long, default_value = "")]
    reason: String,
}

/// Runs the command.
pub(super) fn run(command: RunCommand, printer: &Printer) -> Result<(), Failure> {
    match command {
        RunCommand::Submit(args) => submit(&args, printer),
        RunCommand::List(args) => list(&args, printer),
        RunCommand::Show(args) => show(&args, printer),
        RunCommand::Abort(args) => abort(&args, printer),
    }
}

/// Reads a plan, and tells what it means for the members.
pub(super) fn read_plan(path: &Path, printer: &Printer) -> Result<RunPlan, Failure> {
    let shown = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text
        .with_context(|| format!("the plan {shown} cannot be read"))
        .map_err(exits::configuration)?;
    let plan = RunPlan::from_toml(&text)
        .with_context(|| shown.to_string())
        .map_err(exits::configuration)?;
    for note in plan_notes::of(&plan) {
        printer.note(&note);
    }
    Ok(plan)
}

fn submit(args: &SubmitArgs, printer: &Printer) -> Result<(), Failure> {
    let dir = &args.directory.dir;
    let (directory, opened) = Directory::open_to_change(dir).map_err(exits::directory)?;
    let mut plan = read_plan(&args.plan, printer)?;
    // What a run cannot be made of is told now, not when its turn comes.
    let possible = plan.policy().and(plan.server_settings());
    possible.map_err(|error| exits::configuration(anyhow!(error)))?;
    let named = args.start_from.clone();
    let named = named.or_else(|| plan.start_from.map(|digest| digest.to_string()));
    let start = named.map(|named| start(directory.store(), &named, &mut plan, printer));
    let start = start.transpose()?;
    plan.seed.get_or_insert_with(|| os_rng().next_u64() >> 1);
    let mut id = [0; 16];
    os_rng().fill_bytes(&mut id);
    let queued = QueuedPlan {
        submitted: SystemClock.now(),
        run: RunId(id),
        keep_for_audit: args.keep_for_audit,
        plan,
    };
    let propose = || -> Result<Act, Failure> {
        let text = serde_json::to_vec_pretty(&queued).expect("a plan has text keys");
        Ok(Act::Plan {
            queued: Box::new(queued.clone()),
            file: audit_log::digest_of(&text),
        })
    };
    let desk = (&directory, &opened);
    if operator::proposed(desk, ActKind::Plans, propose, &args.operator, printer)? {
        return Ok(());
    }
    let queue = directory.queue();
    queue
        .submit(&queued)
        .with_context(|| queue.path_of_folder().display().to_string())
        .map_err(failed)?;
    // From here on it is kept. It may have been removed just before.
    if let Some(start) = start
        && let Err(error) = StartingAdapter::of(directory.store(), &queued.plan)
    {
        queue
            .remove(queued.run)
            .with_context(|| queue.path_of_folder().display().to_string())
            .map_err(failed)?;
        return Err(refused_start(&start, error));
    }
    let run = queued.run.to_string();
    let served = directory.is_served().map_err(exits::directory)?;
    printer.result(&json!({ "run": run, "served": served }), || &run);
    if !served {
        printer.note(&"no process serves this directory: the run begins once `serve` does");
    }
    Ok(())
}

/// Finds the adapter that a plan is to begin from, puts its digest into the plan, and tells what it is.
fn start(
    store: &Store,
    named: &str,
    plan: &mut RunPlan,
    printer: &Printer,
) -> Result<String, Failure> {
    let found = StartingAdapter::named(store, named, plan);
    let found = found.map_err(|error| refused_start(named, error))?;
    let PublishedAdapter {
        adapter,
        run,
        round,
        ..
    } = &found.published;
    plan.start_from = Some(*adapter);
    printer.note(&format!(
        "note: the run begins from the adapter of round {round} of run {run}. Members that were not in \
         that run take part only if their floors.unknown_start allows it"
    ));
    if found.result_is_another {
        printer.note(&"note: another adapter of that run is its result: its later rounds did harm");
    }
    Ok(named.to_owned())
}

fn refused_start(named: &str, error: StartError) -> Failure {
    let exit = exits::start_exit(&error);
    let error = anyhow!(error).context(format!("a run cannot begin from {named:?}"));
    Failure::new(exit, error).with_hint("`fedlora-aggregator adapter list` shows all")
}

fn list(args: &DirArgs, printer: &Printer) -> Result<(), Failure> {
    let runs = runs(args)?;
    printer.result(&json!({ "runs": runs }), || match &runs[..] {
        [] => "no run yet".to_owned(),
        runs => runs.iter().map(row).collect::<Vec<_>>().join("\n"),
    });
    Ok(())
}

fn runs(args: &DirArgs) -> Result<Vec<ListedRun>, Failure> {
    let (directory, _) = Directory::open(&args.dir).map_err(exits::directory)?;
    run_list::all(&directory).map_err(exits::directory)
}

fn row(one: &ListedRun) -> String {
    let why = one.failure.as_deref().map(|why| format!("  {why}"));
    format!(
        "{}  {:<9} {:>10} rounds{}",
        one.run,
        one.state.name(),
        rounds(one),
        why.unwrap_or_default()
    )
}

fn rounds(one: &ListedRun) -> String {
    let planned = one.rounds_planned.map(|rounds| rounds.to_string());
    format!(
        "{} of {}",
        one.rounds_done,
        planned.as_deref().unwrap_or("?")
    )
}

/// The one run whose id begins like this.
fn find(args: &OneRunArgs) -> Result<ListedRun, Failure> {
    let mut found: Vec<_> = runs(&args.directory)?;
    found.retain(|one| !args.run.is_empty() && one.run.starts_with(&args.run));
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(failed(anyhow!("there is no run {}", args.run))
            .with_hint("`fedlora-aggregator run list` shows all runs")),
        (Some(_), others) => Err(
            failed(anyhow!("{} runs begin with {}", others + 1, args.run))
                .with_hint("name more of the id"),
        ),
    }
}

fn show(args: &OneRunArgs, printer: &Printer) -> Result<(), Failure> {
    let one = find(args)?;
    printer.result(&one, || {
        let mut lines = vec![format!("run          {}", one.run)];
        lines.push(format!("state        {}", one.state.name()));
        lines.push(format!("rounds       {}", rounds(&one)));
        if let Some(failure) = &one.failure {
            lines.push(format!("reason       {failure}"));
        }
        if let Some(adapter) = &one.adapter {
            lines.push(format!("adapter      {adapter}"));
        }
        let members = one
            .members
            .iter()
            .map(|name| format!("member       {name}"));
        lines.extend(members);
        lines.join("\n")
    });
    Ok(())
}

fn abort(args: &AbortArgs, printer: &Printer) -> Result<(), Failure> {
    // First: this may be a host that has not heard of the run yet.
    let path = &args.run.directory.dir;
    let (directory, _) = Directory::open_to_change(path).map_err(exits::directory)?;
    let one = find(&args.run)?;
    let id: RunId = one
        .run
        .parse()
        .map_err(|error| failed(anyhow!("{error}")))?;
    let folder = RunDirectory::of(directory.store(), id);
    let done = match (one.state, folder) {
        (
            ListedState::Finished | ListedState::Failed | ListedState::Aborted | ListedState::Ended,
            _,
        ) => {
            return Err(failed(anyhow!("the run is over: {}", one.state.name())));
        }
        // Whoever serves it ends it, and tells the members.
        (ListedState::Served, Some(folder)) => {
            folder
                .ask_to_end(&args.reason)
                .map_err(|error| failed(error.into()))?;
            "ending"
        }
        (_, folder) => {
            // Its turn must not come meanwhile.
            let _lock = directory.lock();
            end(&directory, id, folder, &args.reason).map_err(|error| failed(error.into()))?;
            "aborted"
        }
    };
    printer.result(&json!({ "run": one.run, "state": done }), || {
        format!("{}  {done}", one.run)
    });
    Ok(())
}

/// Ends a run that nobody serves, or that has not had its turn.
fn end(
    directory: &Directory,
    run: RunId,
    folder: Option<RunDirectory>,
    reason: &str,
) -> std::io::Result<()> {
    let queue = directory.queue();
    queue.remove(run)?;
    // It may have had its turn just now.
    let Some(folder) = folder.or_else(|| RunDirectory::of(directory.store(), run)) else {
        return Ok(());
    };
    clear_uploads(&folder);
    folder.store_end(&RunEnding::by_operator(reason, SystemClock.now()))?;
    folder.ask_to_end(reason)
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Failed, error)
}
