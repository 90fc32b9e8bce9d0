//! `fedlora eval`: how well a base model, or one with an adapter, does on records.

mod report;
mod task;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;
use fedlora_data::{Dataset, PrepareOptions, Prepared};
use fedlora_model::Example;
use fedlora_shell::{Failure, Printer, Progress, ProgressUnit, print_error, values};
use fedlora_train::Evaluation;

use super::args::{AdapterArg, ModelArgs, RecordArgs, ResponseArg};
use super::data::Sets;
use super::exits::{data, usage};
use super::open::{OpenedModel, open_model};
use report::EvalDocument;
use task::{EvalTask, TaskKind};

/// Most tokens of a generated response by default.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(128).expect("above 0");

/// Options of `fedlora eval`.
#[derive(Debug, clap::Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArg,
    /// Records to score; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    records: RecordArgs,
    /// Tokens at which a record is cut [default: as many as the base takes].
    #[arg(long, value_name = "TOKENS", value_parser = values::sequence_length)]
    seq: Option<usize>,
    /// What to score besides the loss.
    #[arg(long, value_enum, default_value_t = TaskKind::Auto)]
    task: TaskKind,
    /// The labels to choose from, separated by commas [default: the records' responses].
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    labels: Vec<String>,
    /// First records to answer [default: 20 with --task auto, all with --task generate].
    #[arg(long, value_name = "RECORDS", value_parser = values::positive)]
    responses: Option<usize>,
    #[command(flatten)]
    response: ResponseArg,
}

/// Runs the command.
pub(super) fn run(args: &EvalArgs, printer: &Printer) -> Result<(), Failure> {
    check(args)?;
    let model = args.model.resolve()?;
    // Records come first: they are read sooner than a model.
    let spec = args.records.resolve();
    let mut sets = Sets::new(spec);
    let records = sets.records(&args.data)?;
    let choose =
        |records: &Dataset| EvalTask::choose(args.task, &args.labels, args.responses, records);
    let mut task = choose(&records)?;
    let opened = open_model(&model, args.adapter.folder.as_deref(), printer)?;
    let positions = opened.engine.max_tokens();
    let max_tokens = args.seq.unwrap_or(positions).min(positions);
    if args.seq.is_some_and(|seq| seq > positions) {
        printer.note(&format!(
            "note: the base takes {positions} tokens: records are cut there"
        ));
    }
    let options = PrepareOptions {
        end_texts: spec.end_texts,
        ..PrepareOptions::new(max_tokens)
    };
    let Prepared {
        examples, report, ..
    } = sets.prepare(&records, &opened.pipeline, &options)?;
    let all = records.len();
    let records = sets.usable(records);
    if records.len() < all {
        task = choose(&records)?;
    }
    for doubt in sets.doubts(&opened.pipeline)? {
        print_error(&doubt);
    }

    let begun = Instant::now();
    let loss = score(&opened, &examples, printer)?;
    let scores = task.scores(
        &opened,
        max_tokens,
        args.response.resolve(MAX_TOKENS),
        printer,
    )?;
    let document = EvalDocument {
        base: opened.base.name(),
        adapter: args.adapter.name(),
        base_dtype: opened.engine.place().1.to_string(),
        device: model.device.to_string(),
        records: report.records,
        truncated: report.truncated,
        left_out: report.nothing_counted,
        loss: loss.loss,
        perplexity: loss.perplexity,
        tokens: loss.tokens,
        token_accuracy: loss.token_accuracy,
        task: task.name(),
        scores,
        seconds: begun.elapsed().as_secs_f64(),
    };
    printer.result(&document, || document.text(&report));
    Ok(())
}

/// Refuses what needs no file to be wrong.
fn check(args: &EvalArgs) -> Result<(), Failure> {
    if !args.labels.is_empty() && !matches!(args.task, TaskKind::Auto | TaskKind::Classify) {
        return Err(usage(anyhow!("--labels are for classification"))
            .with_hint("leave out --labels, or --task"));
    }
    Ok(())
}

fn score(
    opened: &OpenedModel,
    examples: &[Example],
    printer: &Printer,
) -> Result<Evaluation, Failure> {
    let progress = Progress::new(printer, ProgressUnit::Items);
    progress.begin("loss", examples.len() as u64);
    let made = opened
        .engine
        .evaluate_with(opened.adapter.as_ref(), examples, &mut |done| {
            progress.set(done as u64);
            ControlFlow::Continue(())
        });
    made.map_err(data)
}
