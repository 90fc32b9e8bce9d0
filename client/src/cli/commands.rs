//! What each command does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use fedlora_adapter::peft;
use fedlora_client::base::Base;
use fedlora_client::directory::{DirectoryError, MemberDirectory};
use fedlora_client::enrol::{self, JoinError};
use fedlora_client::federation::Participant;
use fedlora_client::update::LocalWork;
use fedlora_common::clock::Timestamp;
use fedlora_common::exit::Exit;
use fedlora_data::{DataReport, Dataset, HeldOut, PrepareOptions};
use fedlora_model::Example;
use fedlora_protocol::crypto::os_rng;
use fedlora_protocol::wire::token::InviteToken;
use fedlora_train::Engine;
use fedlora_transport::TransportError;
use rand::Rng;
use serde_json::json;
use tokio::sync::mpsc;

use super::Failure;
use super::args::{Args, Command, Format, RunArgs};
use super::display::Display;
use super::fetch::open_base;
use super::local::data_line;
use super::stop::Stop;
use super::threads;

/// The share of the records that is held out where no held-out file is given.
const HELD_OUT: f64 = 0.1;

/// Runs a command.
pub(super) async fn run(args: Args, stop: Stop) -> Result<(), Failure> {
    let (format, quiet) = (args.format, args.quiet);
    match args.command {
        Command::Join { token, dir } => join(&token, &dir, format).await,
        Command::Run(run) => take_part(run, format, quiet).await,
        Command::Check(check) => local(move || super::check::run(&check, format, quiet)).await,
        Command::Train(train) => {
            local(move || super::train::run(&train, format, quiet, &stop)).await
        }
        Command::Eval(eval) => local(move || super::eval::run(&eval, format, quiet)).await,
        Command::Generate(generate) => {
            local(move || super::generate::run(&generate, format, quiet)).await
        }
    }
}

/// Runs work that computes on a thread of its own, so that an interruption is noticed.
async fn local(work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // The panic's own words stand above.
        Err(_) => Err(Failure::new(
            Exit::Failed,
            anyhow!("the command ended unexpectedly; the reason stands above"),
        )),
    }
}

async fn join(token: &InviteToken, dir: &Path, format: Format) -> Result<(), Failure> {
    let config = enrol::join(token, dir, now()).await.map_err(|error| {
        let exit = match &error {
            JoinError::Transport(
                TransportError::ServerCertificate(_) | TransportError::Refused { .. },
            ) => Exit::Identity,
            JoinError::Transport(_) => Exit::Network,
            JoinError::Directory(error) => directory_exit(error),
            JoinError::Expired
            | JoinError::Refused { .. }
            | JoinError::OtherCertificate { .. }
            | JoinError::Pki(_)
            | JoinError::Codec(_) => Exit::Identity,
        };
        Failure::new(exit, error)
    })?;
    let (_, membership) = MemberDirectory::open(dir).map_err(directory)?;
    let fingerprint = membership.identity.public().fingerprint();
    match format {
        Format::Json => print_json(&json!({
            "schema_version": 1,
            "member": config.name,
            "federation": config.federation,
            "identity": fingerprint,
            "aggregator": config.aggregator.fingerprint(),
            "address": config.address,
        })),
        Format::Text => {
            println!("member       {}", config.name);
            println!("federation   {}", config.federation);
            println!("identity     {fingerprint}");
            println!("aggregator   {}", config.aggregator.fingerprint());
            println!("runs at      {} (UDP)", config.address);
        }
    }
    Ok(())
}

async fn take_part(args: RunArgs, format: Format, quiet: bool) -> Result<(), Failure> {
    let (directory_, membership) = MemberDirectory::open(&args.dir).map_err(directory)?;
    let data = |error: anyhow::Error| Failure {
        error,
        exit: Exit::Data,
    };
    threads::limit(args.threads)?;
    let seed = args.seed.unwrap_or_else(|| os_rng().next_u64());
    // On a thread of its own, so that an interruption is noticed.
    let prepared = tokio::task::spawn_blocking(move || {
        let base = open_base(&args.base, quiet)?;
        let work = prepare(&args, &base, seed, quiet).map_err(data)?;
        Ok((args, work))
    });
    let (args, work) = prepared
        .await
        .context("reading the base model and the records ended unexpectedly")
        .map_err(data)??;
    let (events, watched) = mpsc::unbounded_channel();
    let participant = Participant::new(
        membership,
        Arc::new(work),
        Box::new(directory_.ledger()),
        Box::new(directory_.roster_pin(args.accept_roster)),
        events,
    )
    .with_patience(Duration::from_secs(args.patience));
    let display = tokio::spawn(Display::new(quiet).show(watched));
    let outcome = participant.run().await;
    let _ = display.await;
    let outcome = outcome.map_err(|error| Failure::new(error.exit(), error))?;

    let folder = directory_.adapter();
    let base_name = if outcome.base_name.is_empty() {
        args.base
    } else {
        outcome.base_name
    };
    peft::save(&folder, &outcome.adapter, &base_name)
        .with_context(|| "the final adapter cannot be written")
        .map_err(|error| Failure {
            error,
            exit: Exit::Failed,
        })?;
    match format {
        Format::Json => print_json(&json!({
            "schema_version": 1,
            "run": outcome.run.to_string(),
            "rounds": outcome.rounds,
            "took_part": outcome.took_part,
            "adapter": outcome.adapter.digest(),
            "adapter_dir": folder,
        })),
        Format::Text => println!("{}", folder.display()),
    }
    Ok(())
}

/// Loads the base model and the private records.
fn prepare(args: &RunArgs, base: &Base, seed: u64, quiet: bool) -> anyhow::Result<LocalWork> {
    let pipeline = base.text()?;
    let weights = base
        .weights()
        .with_context(|| format!("the base model {}", args.base))?;
    let kind = args.base_dtype.unwrap_or(args.device.base_kind());
    let engine = Engine::with_kind(&weights, kind, base.name(), &args.device)
        .with_context(|| format!("the base model {}", args.base))?;
    // Here rather than in a session, which it would hold up.
    engine.base_digest()?;
    let options = PrepareOptions {
        max_tokens: engine.max_tokens(),
    };
    let records = read(&args.data)?;
    let (training, held_out) = if args.held_out.is_empty() {
        records.split(HeldOut::share(HELD_OUT)?)
    } else {
        (records, read(&args.held_out)?)
    };
    let (training, report) = training.prepare(&pipeline, &options)?;
    let say = |what, report: &DataReport| {
        if !quiet {
            eprintln!("{}", data_line(what, report, options.max_tokens));
        }
    };
    say("training", &report);
    if training.is_empty() {
        return Err(anyhow!("there is no record to train on in {:?}", args.data));
    }
    let held_out: Vec<Example> = if held_out.is_empty() {
        Vec::new()
    } else {
        let (held_out, report) = held_out.prepare(&pipeline, &options)?;
        say("held out", &report);
        held_out
    };
    Ok(LocalWork::new(engine, training, held_out, seed)
        .with_memory(args.memory.into(), args.ignore_memory))
}

fn read(files: &[PathBuf]) -> anyhow::Result<Dataset> {
    Ok(Dataset::read(files)?)
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since.as_millis() as u64)
}

fn directory_exit(error: &DirectoryError) -> Exit {
    match error {
        DirectoryError::Joined { .. }
        | DirectoryError::NotJoined { .. }
        | DirectoryError::Config { .. } => Exit::Configuration,
        DirectoryError::IdentityKey { .. } | DirectoryError::Pki(_) => Exit::Identity,
        DirectoryError::Io { .. } => Exit::Failed,
    }
}

fn directory(error: DirectoryError) -> Failure {
    Failure::new(directory_exit(&error), error)
}

pub(super) fn print_json<T: serde::Serialize>(value: &T) {
    println!(
        "{}",
        serde_json::to_string(value).expect("documents have text keys")
    );
}
