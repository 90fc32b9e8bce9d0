//! `fedlora eval`: how well a base model, or one with an adapter, does on records.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;
use clap::ValueEnum;
use fedlora_data::{DataReport, Dataset, PrepareOptions};
use fedlora_model::Example;
use fedlora_model::WeightKind;
use fedlora_train::eval::{
    Classification, EvaluationError, LabelSet, Question, Responses, classify, respond,
};
use fedlora_train::{Device, Evaluation};
use serde::Serialize;

use super::args::Format;
use super::commands::print_json;
use super::local::{self, Opened, data, usage};
use super::{Failure, threads};

/// Responses that are generated where nobody asked for them: each takes seconds on a large base.
const SAMPLE: usize = 20;

/// What it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// The base model: a Hugging Face folder, a GGUF file or a name on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    pub(crate) base: String,
    /// A PEFT adapter made for it.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// Records to score; may be given several times.
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Tokens at which a record is cut [default: as many as the base takes].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) seq: Option<usize>,
    /// What to score besides the loss.
    #[arg(long, value_enum, default_value_t = Task::Auto)]
    pub(crate) task: Task,
    /// The labels to choose from, separated by commas [default: the records' responses].
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    pub(crate) labels: Vec<String>,
    /// Responses to generate, those of the first records [default: 20 with --task auto, all with
    /// --task generate].
    #[arg(long, value_name = "RECORDS")]
    pub(crate) responses: Option<usize>,
    /// Most tokens of a generated response.
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    pub(crate) max_tokens: usize,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, env = "FEDLORA_DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// How the base is held in memory: f32, bf16, q8 or q4 [default: f32, bf16 on a GPU].
    #[arg(long, value_name = "KIND")]
    pub(crate) base_dtype: Option<WeightKind>,
    /// Threads that compute [default: one a processor].
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// What is scored besides the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// Classification if the responses are few, short and repeated; otherwise generation of some.
    Auto,
    /// Nothing.
    Loss,
    /// Accuracy and macro-F1 of the label that is likeliest as the response.
    Classify,
    /// ROUGE and BLEU of greedy responses against the records'.
    Generate,
}

/// What is printed.
#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    base: &'a str,
    adapter: Option<String>,
    base_dtype: String,
    device: String,
    records: usize,
    truncated: usize,
    left_out: usize,
    loss: f64,
    perplexity: f64,
    tokens: usize,
    token_accuracy: f64,
    task: &'static str,
    #[serde(flatten)]
    scores: Scores,
    seconds: f64,
}

/// What the task adds.
#[derive(Serialize)]
#[serde(untagged)]
enum Scores {
    None {},
    Classified {
        /// Whether the label set was given or found.
        label_set: &'static str,
        labels: usize,
        choice: &'static str,
        classified: usize,
        too_long: usize,
        accuracy: f64,
        macro_f1: f64,
    },
    Generated {
        generated: usize,
        generated_tokens: usize,
        too_long: usize,
        cut: usize,
        max_tokens: usize,
        rouge1: f64,
        rouge2: f64,
        #[serde(rename = "rougeL")]
        rouge_l: f64,
        bleu: f64,
        bleu_brevity_penalty: f64,
    },
}

/// Runs the command.
pub(super) fn run(args: &EvalArgs, format: Format, quiet: bool) -> Result<(), Failure> {
    check(args)?;
    threads::limit(args.threads)?;
    // Records come first: they are read sooner than a model.
    let records = Dataset::read(&args.data).map_err(data)?;
    let work = Work::of(args, &records)?;
    let opened = local::open(
        &args.base,
        args.adapter.as_deref(),
        args.base_dtype,
        &args.device,
        quiet,
    )?;
    let positions = opened.engine.max_tokens();
    let max_tokens = args.seq.unwrap_or(positions).min(positions);
    if args.seq.is_some_and(|seq| seq > positions) && !quiet {
        eprintln!("note: the base takes {positions} tokens: records are cut there");
    }
    let options = PrepareOptions { max_tokens };
    let (examples, report) = records.prepare(&opened.pipeline, &options).map_err(data)?;

    let begun = Instant::now();
    let loss = score(&opened, &examples, quiet)?;
    let max_new = NonZeroUsize::new(args.max_tokens).ok_or_else(no_tokens)?;
    let scores = work.scores(&opened, max_tokens, max_new, quiet)?;
    let document = Document {
        schema_version: 1,
        base: opened.base.name(),
        adapter: args
            .adapter
            .as_ref()
            .map(|folder| folder.display().to_string()),
        base_dtype: opened.engine.place().1.to_string(),
        device: args.device.to_string(),
        records: report.records,
        truncated: report.truncated,
        left_out: report.nothing_counted,
        loss: loss.loss,
        perplexity: loss.perplexity,
        tokens: loss.tokens,
        token_accuracy: loss.token_accuracy,
        task: work.name(),
        scores,
        seconds: begun.elapsed().as_secs_f64(),
    };
    match format {
        Format::Json => print_json(&document),
        Format::Text => print(&document, &report),
    }
    Ok(())
}

/// Refuses what needs no file to be wrong.
fn check(args: &EvalArgs) -> Result<(), Failure> {
    if args.seq.is_some_and(|seq| seq < 2) {
        return Err(usage(anyhow!(
            "--seq is {}: a token to predict and one before it are at least 2",
            args.seq.unwrap_or_default()
        )));
    }
    if args.max_tokens == 0 {
        return Err(no_tokens());
    }
    if args.responses == Some(0) {
        return Err(usage(anyhow!(
            "--responses is 0: give at least 1, or --task loss"
        )));
    }
    if !args.labels.is_empty() && !matches!(args.task, Task::Auto | Task::Classify) {
        return Err(usage(anyhow!(
            "--labels are for classification: leave them out, or --task"
        )));
    }
    Ok(())
}

fn no_tokens() -> Failure {
    usage(anyhow!("--max-tokens is 0: give at least 1"))
}

/// The task, decided.
enum Work {
    Loss,
    Classify {
        questions: Vec<Question>,
        labels: LabelSet,
        given: bool,
    },
    Generate {
        questions: Vec<Question>,
    },
}

impl Work {
    fn of(args: &EvalArgs, records: &Dataset) -> Result<Self, Failure> {
        let questions = || Question::of_records(records).map_err(data);
        let first = |mut questions: Vec<Question>, most| {
            questions.truncate(args.responses.unwrap_or(most));
            Self::Generate { questions }
        };
        let given = !args.labels.is_empty();
        match args.task {
            Task::Loss => Ok(Self::Loss),
            Task::Generate => Ok(first(questions()?, usize::MAX)),
            Task::Auto if !given => {
                let questions = Question::of_records(records).unwrap_or_default();
                Ok(match LabelSet::detect(&questions) {
                    None if questions.is_empty() => Self::Loss,
                    None => first(questions, SAMPLE),
                    Some(labels) => Self::Classify {
                        questions,
                        labels,
                        given,
                    },
                })
            }
            Task::Auto | Task::Classify => {
                let questions = questions()?;
                let labels = if given {
                    LabelSet::given(&args.labels, &questions)
                } else {
                    LabelSet::of_responses(&questions)
                };
                Ok(Self::Classify {
                    labels: labels.map_err(data)?,
                    questions,
                    given,
                })
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Classify { .. } => "classify",
            Self::Generate { .. } => "generate",
        }
    }

    fn scores(
        &self,
        opened: &Opened,
        max_tokens: usize,
        max_new: NonZeroUsize,
        quiet: bool,
    ) -> Result<Scores, Failure> {
        let fresh = || {
            let decoder = opened.engine.decoder(opened.adapter.as_ref());
            decoder.map_err(data)
        };
        match self {
            Self::Loss => Ok(Scores::None {}),
            Self::Classify {
                questions,
                labels,
                given,
            } => {
                let bar = local::bar("labels", questions.len(), quiet);
                let made = classify(
                    &fresh()?,
                    &opened.pipeline,
                    questions,
                    labels,
                    max_tokens,
                    &mut |done| {
                        bar.set_position(done as u64);
                        ControlFlow::Continue(())
                    },
                );
                bar.finish_and_clear();
                let made: Classification = made.map_err(failed)?;
                Ok(Scores::Classified {
                    label_set: if *given { "given" } else { "responses" },
                    labels: labels.labels().len(),
                    choice: "likelihood",
                    classified: made.records,
                    too_long: made.too_long,
                    accuracy: made.accuracy,
                    macro_f1: made.macro_f1,
                })
            }
            Self::Generate { questions } => {
                let bar = local::bar("responses", questions.len(), quiet);
                let made = respond(
                    &fresh()?,
                    &opened.pipeline,
                    questions,
                    max_new,
                    &mut |done| {
                        bar.set_position(done as u64);
                        ControlFlow::Continue(())
                    },
                );
                bar.finish_and_clear();
                let made: Responses = made.map_err(failed)?;
                Ok(Scores::Generated {
                    generated: made.records,
                    generated_tokens: made.tokens,
                    too_long: made.too_long,
                    cut: made.cut,
                    max_tokens: max_new.get(),
                    rouge1: made.rouge1,
                    rouge2: made.rouge2,
                    rouge_l: made.rouge_l,
                    bleu: made.bleu.score,
                    bleu_brevity_penalty: made.bleu.brevity_penalty,
                })
            }
        }
    }
}

fn score(opened: &Opened, examples: &[Example], quiet: bool) -> Result<Evaluation, Failure> {
    let bar = local::bar("loss", examples.len(), quiet);
    let made = opened
        .engine
        .evaluate_with(opened.adapter.as_ref(), examples, &mut |done| {
            bar.set_position(done as u64);
            ControlFlow::Continue(())
        });
    bar.finish_and_clear();
    made.map_err(data)
}

fn failed(error: EvaluationError) -> Failure {
    data(error)
}

fn print(document: &Document<'_>, report: &DataReport) {
    let line = |name: &str, value: String| println!("{name:<16} {value}");
    let mut of = vec![match document.records {
        1 => "1 record".to_owned(),
        count => format!("{count} records"),
    }];
    if document.truncated > 0 {
        of.push(format!(
            "{} cut ({} tokens lost)",
            document.truncated, report.tokens_lost
        ));
    }
    if document.left_out > 0 {
        of.push(format!("{} left out: nothing counts", document.left_out));
    }
    line("data", of.join(", "));
    line("loss", format!("{:.6}", document.loss));
    line("perplexity", format!("{:.4}", document.perplexity));
    line("token accuracy", percent(document.token_accuracy));
    line("tokens", document.tokens.to_string());
    match &document.scores {
        Scores::None {} => {}
        Scores::Classified {
            label_set,
            labels,
            classified,
            too_long,
            accuracy,
            macro_f1,
            ..
        } => {
            let found = match *label_set {
                "given" => "given",
                _ => "found in the responses",
            };
            line("labels", format!("{labels}, {found}"));
            line("accuracy", percent(*accuracy));
            line("macro-F1", percent(*macro_f1));
            line("classified", left_out(*classified, *too_long));
        }
        Scores::Generated {
            generated,
            generated_tokens,
            too_long,
            cut,
            rouge1,
            rouge2,
            rouge_l,
            bleu,
            ..
        } => {
            line("ROUGE-1", percent(*rouge1));
            line("ROUGE-2", percent(*rouge2));
            line("ROUGE-L", percent(*rouge_l));
            line("BLEU", format!("{bleu:.2}"));
            let mut text = left_out(*generated, *too_long);
            text.push_str(&format!(", {generated_tokens} tokens, {cut} cut short"));
            line("generated", text);
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn left_out(done: usize, too_long: usize) -> String {
    match too_long {
        0 => done.to_string(),
        _ => format!("{done}, {too_long} left out as too long"),
    }
}
