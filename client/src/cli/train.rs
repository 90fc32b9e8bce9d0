//! `fedlora train`: fine-tunes an adapter on this machine.

use anyhow::{Context, anyhow};
use fedlora_adapter::{Adapter, LoraConfig, peft};
use fedlora_common::exit::Exit;
use fedlora_data::{DataError, Dataset, HeldOut, PrepareOptions, TextPipeline};
use fedlora_model::Example;
use fedlora_model::{LlamaConfig, WeightKind};
use fedlora_train::{
    CheckpointError, Engine, MemoryPlan, OutputError, OutputFolder, RunError, RunOutcome, Setup,
    Summary, TrainError, TrainOption, TrainOptionsError, Workload, free_memory,
    run as run_training,
};
use serde::Serialize;

use super::args::Format;
use super::fetch::open_base;
use super::local::{data, data_line, usage};
use super::stop::Stop;
use super::train_args::{TrainArgs, options, spec};
use super::train_display::{TrainDisplay, print, print_document};
use super::{Failure, threads};

/// The last document of `--format json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema_version: u32,
    event: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Runs the command.
pub(super) fn run(
    args: &TrainArgs,
    format: Format,
    quiet: bool,
    stop: &Stop,
) -> Result<(), Failure> {
    check(args)?;
    let first = first_adapter(args)?;
    threads::limit(args.threads)?;
    // The folder comes first: a wrong one should not cost the reading of a model.
    let mut folder = OutputFolder::open(&args.out).map_err(output)?;
    if folder.finished() && !args.restart {
        let path = args.out.clone();
        return Err(output(OutputError::Finished {
            path,
            differences: Vec::new(),
        }));
    }
    let mut display = TrainDisplay::new(format, quiet, args.log_every, args.log_file.as_deref())
        .map_err(|error| Failure::new(Exit::Failed, error))?;

    let base = open_base(&args.base, quiet)?;
    let pipeline = base.text().map_err(data)?;
    let weights = base.weights().map_err(data)?;
    let most = weights.config().max_position_embeddings;
    let seq = match args.seq {
        Some(seq) if seq > most => {
            return Err(usage(anyhow!(
                "--seq is {seq}: this base takes at most {most} tokens"
            )));
        }
        Some(seq) => seq,
        None => most.min(1024),
    };
    let (training, held_out) = read(args, &pipeline, seq, &mut display)?;
    let kind = args.base_dtype.unwrap_or(args.device.base_kind());
    if !args.ignore_memory {
        fits(
            args,
            &first,
            weights.config(),
            kind,
            seq,
            &training,
            &held_out,
        )?;
    }
    let engine = Engine::with_kind(&weights, kind, base.name(), &args.device)
        .with_context(|| format!("the base model {}", base.name()))
        .map_err(data)?;
    drop(weights);

    let adapter = match first {
        First::Fresh(config) => engine.init_adapter(&config, args.seed).map_err(data)?,
        First::Given(adapter) => adapter,
    };
    let options = options(args, seq).map_err(option)?;
    let digest = engine.base_digest().map_err(data)?;
    let spec = spec(args, &options, digest, &adapter, &training, &held_out);
    folder.begin(&spec, args.restart).map_err(output)?;
    let setup = Setup {
        engine: &engine,
        base_name: base.name(),
        adapter: &adapter,
        training: &training,
        held_out: &held_out,
        options: &options,
        spec: &spec,
    };
    stop.heed();
    let outcome = run_training(&setup, &mut folder, &|| stop.asked(), &mut |event| {
        display.show(&event);
    });
    display.end();
    match outcome.map_err(failed)? {
        RunOutcome::Finished(summary) => {
            display.summary(&summary);
            match format {
                Format::Json => print_document(&Document {
                    schema_version: 1,
                    event: "finished",
                    summary: &summary,
                }),
                Format::Text => print(&summary.adapter_dir.display()),
            }
            Ok(())
        }
        RunOutcome::Interrupted { step, steps } => Err(Failure::new(
            Exit::Interrupted,
            anyhow!(
                "interrupted after step {step} of {steps}: the same command goes on from there"
            ),
        )),
    }
}

/// Refuses what would not fit into the device's memory, before the weights are read.
fn fits(
    args: &TrainArgs,
    first: &First,
    config: &LlamaConfig,
    kind: WeightKind,
    seq: usize,
    training: &[Example],
    held_out: &[Example],
) -> Result<(), Failure> {
    let Some(available) = free_memory(&args.device).map_err(data)? else {
        return Ok(());
    };
    let lora = match first {
        First::Fresh(lora) => lora,
        First::Given(adapter) => adapter.config(),
    };
    let mut workload = Workload::of(lora, args.device, kind)
        .with_examples(training, args.batch, seq)
        .with_held_out(held_out, seq);
    if args.pack {
        let all = training.iter().map(|e| e.tokens().len()).sum();
        workload.rows = args.batch.saturating_mul(seq).min(all);
    }
    let plan = MemoryPlan {
        config,
        device: args.device,
        workload,
        batch: Some(args.batch),
        kind,
        memory: args.memory.into(),
    };
    plan.check(available).map_err(data)
}

/// The examples to train on and those held out.
fn read(
    args: &TrainArgs,
    pipeline: &TextPipeline,
    seq: usize,
    display: &mut TrainDisplay,
) -> Result<(Vec<Example>, Vec<Example>), Failure> {
    let options = PrepareOptions { max_tokens: seq };
    let records = Dataset::read(&args.data).map_err(data)?;
    let (training, held_out) = match args.hold_out {
        Some(share) => records.split(HeldOut::share(share).map_err(usage)?),
        None if args.eval_data.is_empty() => (records, Dataset::default()),
        None => (records, Dataset::read(&args.eval_data).map_err(data)?),
    };
    let mut prepare = |what, records: &Dataset| -> Result<Vec<Example>, DataError> {
        let (examples, report) = records.prepare(pipeline, &options)?;
        display.line(&data_line(what, &report, seq));
        Ok(examples)
    };
    let training = prepare("training", &training).map_err(data)?;
    if training.is_empty() {
        return Err(data(anyhow!("there is no record to train on")));
    }
    let held_out = match held_out.is_empty() {
        true if args.hold_out.is_some_and(|share| share > 0.0) => {
            return Err(data(anyhow!(
                "--hold-out left no record to score: there are too few for so small a share"
            )));
        }
        true => Vec::new(),
        false => prepare("held out", &held_out).map_err(data)?,
    };
    Ok((training, held_out))
}

/// What a training begins with.
enum First {
    /// An adapter that changes nothing yet.
    Fresh(LoraConfig),
    /// One that is there.
    Given(Adapter),
}

fn first_adapter(args: &TrainArgs) -> Result<First, Failure> {
    let Some(dir) = &args.init_adapter else {
        let alpha = args.alpha.unwrap_or(2.0 * args.rank as f64);
        let dropout = args.dropout.unwrap_or(0.0);
        let targets = args.targets.iter().copied();
        return LoraConfig::new(args.rank, alpha, dropout, targets)
            .map(First::Fresh)
            .map_err(usage);
    };
    let adapter = peft::load(dir).map_err(data)?;
    let config = adapter.config();
    let dropout = args.dropout.unwrap_or(config.dropout());
    let targets = config.targets().iter().copied();
    let config = LoraConfig::new(config.rank(), config.alpha(), dropout, targets).map_err(usage)?;
    let (layout, values) = (adapter.layout().clone(), adapter.values().to_vec());
    Adapter::new(config, layout, values)
        .map(First::Given)
        .map_err(data)
}

/// Checks what needs no file.
fn check(args: &TrainArgs) -> Result<(), Failure> {
    if args.patience.is_some() && args.eval_data.is_empty() && args.hold_out.is_none() {
        return Err(usage(anyhow!(
            "--patience needs held-out records: give --eval-data or --hold-out"
        )));
    }
    for (option, value) in [
        ("--eval-every", args.eval_every),
        ("--patience", args.patience),
        ("--log-every", Some(args.log_every)),
        ("--steps", args.steps),
    ] {
        if value == Some(0) {
            return Err(usage(anyhow!("{option} is 0: give at least 1")));
        }
    }
    // The length of the examples is known later; 2 is in range.
    options(args, args.seq.unwrap_or(2)).map_err(option)?;
    Ok(())
}

/// An option out of range, by its name on the command line.
fn option(error: TrainOptionsError) -> Failure {
    let TrainOptionsError {
        option,
        got,
        expected,
    } = error;
    let (option, expected) = match option {
        TrainOption::BatchSize => ("--batch", expected),
        TrainOption::Accumulation => ("--accumulate", expected),
        TrainOption::MaxTokens => ("--seq", expected),
        TrainOption::Steps | TrainOption::ScheduleSteps => ("--steps", expected),
        TrainOption::Epochs => ("--epochs", expected),
        TrainOption::LearningRate => ("--lr", expected),
        TrainOption::WarmupShare => ("--warmup", expected),
        TrainOption::WeightDecay => ("--weight-decay", expected),
        // 0 switches clipping off.
        TrainOption::ClipNorm => ("--clip", "a finite number, 0 or above"),
    };
    usage(anyhow!("{option} is {got}: give {expected}"))
}

fn output(error: OutputError) -> Failure {
    let exit = match error {
        OutputError::Busy { .. }
        | OutputError::Io { .. }
        | OutputError::Checkpoint(_)
        | OutputError::File(_) => Exit::Failed,
        OutputError::NoFolder { .. }
        | OutputError::Foreign { .. }
        | OutputError::Unknown { .. }
        | OutputError::Finished { .. }
        | OutputError::Other { .. } => Exit::Configuration,
    };
    Failure::new(exit, error)
}

fn failed(error: RunError) -> Failure {
    let exit = match error {
        RunError::Output(error) => return output(error),
        RunError::Train(TrainError::Options(error)) => return option(error),
        RunError::Train(error) => return data(error),
        RunError::OtherCheckpoint { .. } => Exit::Configuration,
        RunError::Checkpoint(CheckpointError::AllDamaged { .. }) => Exit::Integrity,
        RunError::Checkpoint(_) | RunError::Metrics(_) | RunError::Peft(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}
