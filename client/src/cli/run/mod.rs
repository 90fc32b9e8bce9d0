//! `fedlora run`: takes part in a federation's run.

mod consent;
mod display;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fedlora_adapter::peft;
use fedlora_common::digest::Digest;
use fedlora_common::exit::Exit;
use fedlora_data::HeldOut;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::round::member::RunOutcome;
use fedlora_shell::{Failure, Printer, Stop, print_error};
use fedlora_train::Engine;
use rand::Rng;
use serde_json::json;
use tokio::sync::mpsc;

use super::args::{
    DataArgs, DataSpec, HeldOutSpec, MemoryArgs, ModelArgs, ModelSpec, TransportArgs,
};
use super::background::local;
use super::data::Examples;
use super::exits::{self, data};
use super::open::open_base;
use crate::directory::MemberDirectory;
use crate::examples::MemberExamples;
use crate::federation::{ExpectedRun, Participant, ParticipantError, RosterConsent, RoundWork};
use crate::personal::{self, ScoreTable};
use crate::receipts::FileReceipts;
use crate::update::LocalWork;
use consent::TerminalConsent;
use display::{Display, HomeBar};

/// The share of the records that is held out by default.
const HELD_OUT: f64 = 0.1;

/// What a member brings to a run.
#[derive(Debug, clap::Args)]
pub(super) struct PartArgs {
    /// The member's directory, made by `fedlora join`.
    #[arg(long, env = "FEDLORA_DIR")]
    dir: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Seed of the order of examples; random by default.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    transport: TransportArgs,
}

/// Options of `fedlora run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    part: PartArgs,
    /// Accept the roster with this digest, and no other; without it, `run` asks on a terminal.
    #[arg(long, value_name = "DIGEST")]
    accept_roster: Option<Digest>,
    /// How long to try again while the aggregator cannot be reached.
    #[arg(
        long,
        alias = "patience",
        value_name = "SECONDS",
        default_value_t = 300
    )]
    retry_for: u64,
}

/// Runs the command.
pub(super) async fn run(args: RunArgs, printer: &Printer, stop: Stop) -> Result<(), Failure> {
    let part = args.part.resolve()?;
    let directory = MemberDirectory::open(&part.dir)
        .map_err(exits::directory)?
        .0;
    let _lock = directory.lock().map_err(exits::directory)?;
    let accept = args.accept_roster;
    let agreed = Agreed {
        run: None,
        roster: accept,
        // Where a roster is named, exactly that one is accepted, and nobody is asked.
        consent: match accept {
            Some(_) => None,
            None => Some(Arc::new(TerminalConsent::new(printer))),
        },
        patience: Duration::from_secs(args.retry_for),
    };
    let left = take_part(&part, agreed, printer, stop).await;
    left.map_err(Left::failure)
}

impl PartArgs {
    /// The options, resolved once for all runs.
    pub(super) fn resolve(self) -> Result<Part, Failure> {
        Ok(Part {
            dir: self.dir,
            model: self.model.resolve()?,
            records: self.data.resolve(HeldOutSpec::Share {
                share: HeldOut::share(HELD_OUT).map_err(data)?,
                required: false,
            }),
            memory: self.memory,
            seed: self.seed,
            transport: self.transport,
        })
    }
}

/// What a member brings to a run.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) dir: PathBuf,
    model: ModelSpec,
    records: DataSpec,
    memory: MemoryArgs,
    seed: Option<u64>,
    pub(super) transport: TransportArgs,
}

/// What a member agrees to beforehand, and whom it asks about the rest.
pub(super) struct Agreed {
    /// The only run to take part in.
    pub(super) run: Option<ExpectedRun>,
    /// The only roster to accept.
    pub(super) roster: Option<Digest>,
    /// Asked about any other.
    pub(super) consent: Option<Arc<dyn RosterConsent>>,
    /// How long to try again while the aggregator cannot be reached.
    pub(super) patience: Duration,
}

/// Why a member is not in a run any more.
#[derive(Debug)]
pub(super) enum Left {
    /// The run, or its part in it, ended early.
    Run(ParticipantError),
    /// It could not begin, or keep what it ended with.
    Failed(Failure),
}

impl Left {
    /// For the program's end.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Run(error) => exits::participant(error),
            Self::Failed(failure) => failure,
        }
    }
}

impl From<Failure> for Left {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Takes part in a run until it ends, keeps the best adapter, and prints what came of it.
pub(super) async fn take_part(
    part: &Part,
    agreed: Agreed,
    printer: &Printer,
    stop: Stop,
) -> Result<(), Left> {
    let (directory, mut membership) = MemberDirectory::open(&part.dir).map_err(exits::directory)?;
    let proxy = part.transport.apply(&mut membership, printer)?;
    let ledger = directory.check_ledger(&membership.config.name);
    ledger.map_err(exits::directory)?;
    let base_name = part.model.base.clone();
    let seed = part.seed.unwrap_or_else(|| os_rng().next_u64());
    let (model, records, memory) = (part.model.clone(), part.records.clone(), part.memory);
    let notes = printer.clone();
    let work = local(move || {
        let work = prepare(&model, &records, seed, &notes)?;
        Ok(work.with_memory(memory.resolve(), memory.ignore_memory))
    })
    .await?;
    let work = Arc::new(work);
    let (events, watched) = mpsc::unbounded_channel();
    let mut participant = Participant::new(
        membership,
        Arc::clone(&work) as Arc<dyn RoundWork>,
        Box::new(directory.ledger()),
        Box::new(directory.roster_pin(agreed.roster)),
        events,
    )
    .with_proxy(proxy)
    .with_receipts(Box::new(FileReceipts::new(directory.runs())))
    .with_patience(agreed.patience);
    if let Some(run) = agreed.run {
        participant = participant.in_run(run);
    }
    if let Some(consent) = agreed.consent {
        participant = participant.with_consent(consent);
    }
    let display = tokio::spawn(Display::new(printer, stop).show(watched));
    let outcome = participant.run().await;
    let _ = display.await;
    let outcome = outcome.map_err(Left::Run)?;

    let base_name = match &outcome.plan.base.name {
        name if name.is_empty() => base_name,
        name => name.clone(),
    };
    for note in outcome.end.notes() {
        printer.note(&note);
    }
    let kept = keep_best(&directory, work, &outcome, base_name, printer).await?;
    directory
        .end_run(outcome.run, "finished")
        .map_err(exits::directory)?;
    let document = json!({
        "run": outcome.run.to_string(),
        "rounds": outcome.end.rounds,
        "stopped_early": outcome.end.stopped_early(),
        "best_round": outcome.end.best,
        "took_part": outcome.took_part,
        "adapter": outcome.adapter.digest(),
        "adapter_dir": directory.adapter(),
        "global_dir": directory.global(),
        "chosen": kept.chosen,
        "gain_percent": kept.gain_percent,
        "scores": kept.scores,
    });
    printer.result(&document, || {
        format!("{kept}\n{}", directory.adapter().display())
    });
    Ok(())
}

/// Keeps the adapter that does best on this member's validation records. The global one is on the
/// disk before anything is trained.
async fn keep_best(
    directory: &MemberDirectory,
    work: Arc<LocalWork>,
    outcome: &RunOutcome,
    base_name: String,
    printer: &Printer,
) -> Result<ScoreTable, Failure> {
    let failed = |error: anyhow::Error| Failure::new(Exit::Failed, error);
    let begun = directory.begin_outcome(outcome.run);
    begun.map_err(exits::directory)?;
    for folder in [directory.global(), directory.adapter()] {
        peft::save(&folder, &outcome.adapter, &base_name)
            .context("the final adapter cannot be written")
            .map_err(failed)?;
    }
    let (plan, global) = (outcome.plan.clone(), outcome.adapter.clone());
    let bar = HomeBar::new(printer);
    let (table, candidates) = local(move || {
        let candidates = personal::personalise(&work, &plan, &global, &mut |progress| {
            bar.show(progress);
            true
        });
        bar.finish();
        let candidates = candidates.map_err(data)?;
        let held_out = &work.examples().held_out;
        let table = ScoreTable::new(work.engine(), &candidates, held_out).map_err(data)?;
        Ok((table, candidates))
    })
    .await?;
    let (adapter, scores) = (directory.adapter(), directory.scores());
    personal::save(&candidates, &table, &base_name, (&adapter, &scores))
        .context("the adapters of this run cannot be written")
        .map_err(failed)?;
    Ok(table)
}

/// Loads the base model and the private records.
fn prepare(
    model: &ModelSpec,
    records: &DataSpec,
    seed: u64,
    printer: &Printer,
) -> Result<LocalWork, Failure> {
    let base = open_base(&model.base, printer)?;
    let pipeline = base.text().map_err(data)?;
    let what = || format!("the base model {}", model.base);
    let weights = base.weights().with_context(what).map_err(data)?;
    let engine = Engine::with_kind(&weights, model.kind, base.name(), &model.device)
        .with_context(what)
        .map_err(data)?;
    // Computed here rather than in a session, which it would hold up.
    engine.base_digest().map_err(data)?;
    let examples = Examples::read(records, &pipeline, engine.max_tokens(), &mut |line| {
        printer.note(&line);
    })?;
    examples.doubts.iter().for_each(print_error);
    Ok(LocalWork::new(
        engine,
        MemberExamples::new(examples.training, examples.held_out),
        seed,
    ))
}
