//! `fedlora train`: fine-tunes an adapter on this machine.

mod args;
mod display;
mod spec;

use anyhow::{Context, anyhow};
use fedlora_adapter::{Adapter, LoraConfig, peft};
use fedlora_common::exit::Exit;
use fedlora_model::LlamaConfig;
use fedlora_shell::{Failure, Format, Interruption, Printer, Stop};
use fedlora_train::{
    Engine, Event, OutputError, OutputFolder, RunOutcome, Setup, Summary, free_memory,
    run as run_training,
};
use serde::Serialize;

use super::args::{HeldOutSpec, ModelSpec};
use super::data::Examples;
use super::exits::{self, data, usage};
use super::memory::{TrainingWork, memory_plan};
use super::open::open_base;
pub(super) use args::TrainArgs;
use args::options;
use display::TrainDisplay;
use spec::spec;

/// What an interrupted training says: it writes a checkpoint first.
pub(super) const INTERRUPTION: Interruption = Interruption {
    ended: "interrupted",
    stopping: "interrupted: finishing the step and writing a checkpoint; interrupt again to end \
        at once",
    forced: "interrupted twice: the same command resumes from the last checkpoint",
};

/// The last document of `--format json`.
#[derive(Debug, Serialize)]
struct FinishedDocument<'a> {
    event: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Runs the command.
pub(super) fn run(args: &TrainArgs, printer: &Printer, stop: &Stop) -> Result<(), Failure> {
    let records = args.data.resolve(HeldOutSpec::Nothing);
    check(args, &records.held_out)?;
    let first = first_adapter(args)?;
    let model = args.model.resolve()?;
    // The folder comes first: a wrong one should not cost the reading of a model.
    let mut folder = OutputFolder::open(&args.out).map_err(exits::output)?;
    if folder.finished() && !args.restart {
        let path = args.out.clone();
        return Err(exits::output(OutputError::Finished {
            path,
            differences: Vec::new(),
        }));
    }
    let mut display = TrainDisplay::new(printer, args.log_every, args.log_file.as_deref())
        .map_err(|error| Failure::new(Exit::Failed, error))?;

    let base = open_base(&model.base, printer)?;
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
    let examples = Examples::read(&records, &pipeline, seq, &mut |line| display.line(line))?;
    for doubt in &examples.doubts {
        display.warning(doubt);
    }
    if !args.memory.ignore_memory {
        fits(args, &model, &first, weights.config(), seq, &examples)?;
    }
    let engine = Engine::with_kind(&weights, model.kind, base.name(), &model.device)
        .with_context(|| format!("the base model {}", base.name()))
        .map_err(data)?;
    drop(weights);

    let adapter = match first {
        First::Fresh(config) => engine.init_adapter(&config, args.seed).map_err(data)?,
        First::Given(adapter) => adapter,
    };
    let options = options(args, seq).map_err(exits::option)?;
    let digest = engine.base_digest().map_err(data)?;
    let spec = spec(
        args,
        &model,
        &options,
        digest,
        &adapter,
        &examples.training,
        &examples.held_out,
    );
    folder.begin(&spec, args.restart).map_err(exits::output)?;
    let setup = Setup {
        engine: &engine,
        base_name: base.name(),
        adapter: &adapter,
        training: &examples.training,
        held_out: &examples.held_out,
        options: &options,
        spec: &spec,
    };
    stop.heed();
    let outcome = run_training(&setup, &mut folder, &|| stop.asked(), &mut |event| {
        if let Event::Begun { steps } | Event::Resumed { steps, .. } = event
            && let Some(warning) = args.warmup.never_ends(steps)
        {
            display.warning(&warning);
        }
        display.show(&event);
    });
    display.end();
    match outcome.map_err(exits::training)? {
        RunOutcome::Finished(summary) => {
            display.summary(&summary);
            match printer.format() {
                Format::Json => printer.document(&FinishedDocument {
                    event: "finished",
                    summary: &summary,
                }),
                Format::Text => printer.data(&summary.adapter_dir.display()),
            }
            Ok(())
        }
        RunOutcome::Interrupted { step, steps } => Err(Failure::new(
            Exit::Interrupted,
            anyhow!(
                "interrupted after step {step} of {steps}: the same command resumes from there"
            ),
        )),
    }
}

/// Refuses what would not fit into the device's memory, before the weights are read.
fn fits(
    args: &TrainArgs,
    model: &ModelSpec,
    first: &First,
    config: &LlamaConfig,
    seq: usize,
    examples: &Examples,
) -> Result<(), Failure> {
    let Some(available) = free_memory(&model.device).map_err(data)? else {
        return Ok(());
    };
    let lora = match first {
        First::Fresh(lora) => lora,
        First::Given(adapter) => adapter.config(),
    };
    let work = TrainingWork {
        lora,
        training: &examples.training,
        held_out: &examples.held_out,
        batch: args.batch,
        seq,
        packed: args.pack,
    };
    let plan = memory_plan(model, config, work, args.memory.resolve());
    plan.check(available).map_err(data)
}

/// The adapter that training starts from.
enum First {
    /// A fresh one, which does not change the base's output.
    Fresh(LoraConfig),
    /// One read from --init-adapter.
    Given(Adapter),
}

fn first_adapter(args: &TrainArgs) -> Result<First, Failure> {
    let Some(dir) = &args.init_adapter else {
        let alpha = args.alpha.unwrap_or(2.0 * args.shape.rank as f64);
        let dropout = args.dropout.unwrap_or(0.0);
        let targets = args.shape.targets.iter().copied();
        let config = LoraConfig::new(args.shape.rank, alpha, dropout, targets).map_err(usage)?;
        return Ok(First::Fresh(if args.rslora {
            config.rank_stabilised()
        } else {
            config
        }));
    };
    let adapter = peft::load(dir).map_err(data)?;
    let config = adapter.config();
    let dropout = args.dropout.unwrap_or(config.dropout());
    let config = config.clone().with_dropout(dropout).map_err(usage)?;
    let (layout, values) = (adapter.layout().clone(), adapter.values().to_vec());
    Adapter::new(config, layout, values)
        .map(First::Given)
        .map_err(data)
}

/// Checks what needs no file.
fn check(args: &TrainArgs, held_out: &HeldOutSpec) -> Result<(), Failure> {
    if args.patience.is_some() && matches!(held_out, HeldOutSpec::Nothing) {
        return Err(usage(anyhow!("--patience needs held-out records"))
            .with_hint("add --eval-data FILE or --hold-out SHARE"));
    }
    // The length of the examples is known later; 2 is in range.
    options(args, args.seq.unwrap_or(2)).map_err(exits::option)?;
    Ok(())
}
