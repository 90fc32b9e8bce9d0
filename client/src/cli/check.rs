//! `fedlora check`: what a training would use, before it.
//!
//! Goes on past whatever is wrong, so that one call shows all of it. Records are shown on
//! the member's own terminal alone: nowhere else does their text leave the program.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::anyhow;
use fedlora_adapter::{Factors, LoraConfig, Target};
use fedlora_client::base::Base;
use fedlora_common::exit::Exit;
use fedlora_data::{
    Dataset, FileReport, HeldOut, Lengths, PrepareOptions, Prepared, Problem, Survey, TextPipeline,
};
use fedlora_model::Example;
use fedlora_model::{BaseWeights, LlamaConfig, Memory, WeightKind};
use fedlora_train::{
    Batches, Device, Engine, Estimate, Machine, MaxTokens, MemoryPlan, TrainOption, TrainOptions,
    Workload, check_device, free_memory, product_rate,
};

use super::Failure;
use super::args::Format;
use super::check_report::{
    BaseSection, DeviceSection, Measured, MemorySection, ProblemEntry, Report, SetSection,
    TimeSection,
};
use super::check_text::{self, Marks, Shown};
use super::commands::print_json;
use super::fetch::open_base;
use super::local::usage;
use super::train_args::MemoryKind;

/// Tokens at which examples are cut, where the base takes as many.
const SEQ: usize = 1024;
/// The share of a lone product's speed that whole steps reach, roughly.
const EFFICIENCY: f64 = 0.6;
/// Steps that a probe measures, after one that does not count.
const PROBED: usize = 2;

/// What it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The base model: a Hugging Face folder, a GGUF file or a name on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    pub(crate) base: String,
    /// Records: JSON Lines, a JSON array or Parquet, or a folder of them; may be given several
    /// times.
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) data: Vec<PathBuf>,
    /// Held-out records; may be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) eval_data: Vec<PathBuf>,
    /// Holds out this share of --data, chosen by each record's content (0.1: a tenth).
    #[arg(
        long,
        allow_negative_numbers = true,
        value_name = "SHARE",
        conflicts_with = "eval_data"
    )]
    pub(crate) hold_out: Option<f64>,
    /// Tokens at which an example is cut [default: 1024, or as many as the base takes].
    #[arg(long)]
    pub(crate) seq: Option<usize>,
    /// Examples computed at a time.
    #[arg(long, default_value_t = 4)]
    pub(crate) batch: usize,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 16)]
    pub(crate) rank: usize,
    /// Adapted layers.
    #[arg(long, value_delimiter = ',', default_value = "q,k,v,o,gate,up,down")]
    pub(crate) targets: Vec<Target>,
    /// Where to train: cpu or cuda:N.
    #[arg(long, env = "FEDLORA_DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// How the frozen base is held in memory: f32, bf16, q8 or q4 [default: f32, bf16 on a GPU].
    #[arg(long)]
    pub(crate) base_dtype: Option<WeightKind>,
    /// What is kept for the backward pass: low computes each block twice and takes less memory.
    #[arg(long, value_enum, default_value_t = MemoryKind::Normal)]
    pub(crate) memory: MemoryKind,
    /// Show so many of the first examples, with what is trained on marked.
    #[arg(long, default_value_t = 3, value_name = "EXAMPLES")]
    pub(crate) show: usize,
    /// Load the model and measure the time of a few steps on made-up tokens.
    #[arg(long)]
    pub(crate) probe: bool,
}

/// Runs the command.
pub(super) fn run(args: &CheckArgs, format: Format, quiet: bool) -> Result<(), Failure> {
    let lora = arguments(args)?;
    let mut checked = Checked::default();
    let base = checked.base(&args.base, quiet);
    let most = base
        .as_ref()
        .map(|base| base.weights.config().max_position_embeddings);
    let seq = match (args.seq, most) {
        (Some(seq), Some(most)) if seq > most => {
            return Err(usage(anyhow!(
                "--seq is {seq}: this base takes at most {most} tokens"
            )));
        }
        (Some(seq), _) => seq,
        (None, most) => most.unwrap_or(SEQ).min(SEQ),
    };
    let (training, held_out) = checked.records(args)?;
    let options = PrepareOptions { max_tokens: seq };
    let pipeline = base.as_ref().map(|base| &base.pipeline);
    let training = pipeline.and_then(|text| checked.prepare(&training, text, &options));
    let held_out = held_out
        .and_then(|records| pipeline.and_then(|text| checked.prepare(&records, text, &options)));
    let prepared = training
        .as_ref()
        .filter(|set| !set.prepared.examples.is_empty());

    let machine = Machine::look();
    let device_error = check_device(&args.device).err();
    let (mut memory, mut time) = (None, None);
    if let (Some(base), Some(set)) = (&base, prepared) {
        let config = base.weights.config();
        let kind = args.base_dtype.unwrap_or(args.device.base_kind());
        let workload = Workload::of(&lora, args.device, kind)
            .with_examples(&set.prepared.examples, args.batch, seq)
            .with_held_out(
                held_out
                    .as_ref()
                    .map_or(&[], |set| &set.prepared.examples[..]),
                seq,
            );
        let estimate = Estimate::of(config, &workload);
        time = Some(if device_error.is_none() {
            checked.time(args, &lora, base, &set.prepared, &estimate, quiet)
        } else {
            steps(args, &set.prepared)
        });
        // What is wrong with the device is told elsewhere.
        let available = free_memory(&args.device).ok().flatten();
        let plan = MemoryPlan {
            config,
            device: args.device,
            workload,
            batch: Some(args.batch),
            kind,
            memory: args.memory.into(),
        };
        if let Some(available) = available {
            checked.note(plan.check(available));
        }
        memory = Some(memory_section(args, &plan, estimate, available));
    }
    checked.problems.sort_by(|a, b| a.place.cmp(&b.place));
    let device_error = device_error.map(|error| error.to_string());
    let report = Report {
        schema_version: 1,
        usable: checked.problems.is_empty()
            && checked.failures.is_empty()
            && device_error.is_none()
            && prepared.is_some(),
        base: base.as_ref().map(Opened::section),
        files: checked.files,
        training: training.as_ref().map(|set| set.section(seq)),
        held_out: held_out.as_ref().map(|set| set.section(seq)),
        memory,
        time,
        device: DeviceSection {
            name: args.device.to_string(),
            error: device_error,
            machine,
        },
        failures: checked.failures,
        problems: checked.problems.iter().map(ProblemEntry::from).collect(),
    };
    match format {
        Format::Json => print_json(&report),
        Format::Text => {
            let shown = match (&training, pipeline) {
                (Some(set), Some(pipeline)) => set.shown(args.show, pipeline),
                _ => Vec::new(),
            };
            check_text::print(&report, &shown, Marks::of_output());
        }
    }
    verdict(&report, checked.exit.unwrap_or(Exit::Data))
}

/// What keeps the data from being used, in a line.
fn verdict(report: &Report, exit: Exit) -> Result<(), Failure> {
    if report.usable {
        return Ok(());
    }
    let lines = match report.problems.len() {
        0 => None,
        1 => Some("1 record cannot be used".to_owned()),
        count => Some(format!("{count} records cannot be used")),
    };
    let nothing = report.training.as_ref().and_then(|set| {
        (set.report.examples == 0).then(|| "there is nothing to train on".to_owned())
    });
    let said: Vec<_> = report
        .failures
        .iter()
        .cloned()
        .chain(report.device.error.clone())
        .chain(lines)
        .chain(nothing)
        .collect();
    Err(Failure::new(exit, anyhow!("{}", said.join("; "))))
}

/// Refuses what no training would take.
fn arguments(args: &CheckArgs) -> Result<LoraConfig, Failure> {
    if args.batch == 0 {
        return Err(usage(anyhow!(
            "--batch is 0: at least 1 example makes a batch"
        )));
    }
    if args.seq.is_some_and(|seq| seq < 2) {
        return Err(usage(anyhow!(
            "--seq is below 2: an example needs a token to predict and one before it"
        )));
    }
    LoraConfig::new(args.rank, 2.0 * args.rank as f64, 0.0, args.targets.clone()).map_err(usage)
}

/// A base model that can be used.
struct Opened {
    base: Base,
    weights: BaseWeights,
    pipeline: TextPipeline,
}

impl Opened {
    fn section(&self) -> BaseSection {
        let config = self.weights.config();
        BaseSection {
            name: self.base.name().to_owned(),
            architecture: format!("{:?}", config.architecture).to_lowercase(),
            parameters: parameters(config),
            blocks: config.num_hidden_layers,
            hidden: config.hidden_size,
            vocabulary: config.vocab_size,
            positions: config.max_position_embeddings,
            chat_template: self.pipeline.has_template(),
        }
    }
}

fn parameters(config: &LlamaConfig) -> u64 {
    let count = |shape: Vec<usize>| shape.into_iter().map(|size| size as u64).product::<u64>();
    let tensors = config.tensors().into_iter();
    tensors.map(|(_, shape)| count(shape)).sum()
}

/// Records with the examples made of them.
struct Set {
    records: Dataset,
    prepared: Prepared,
}

impl Set {
    fn section(&self, seq: usize) -> SetSection {
        SetSection {
            report: self.prepared.report,
            seq,
            lengths: Lengths::of(&self.prepared.lengths),
        }
    }

    fn shown(&self, count: usize, pipeline: &TextPipeline) -> Vec<Shown> {
        let origins = self.prepared.origins.iter();
        let examples = self.prepared.examples.iter().zip(origins).take(count);
        examples
            .map(|(example, &origin)| {
                let place = self.records.records()[origin].place();
                Shown::of(example, place.to_string(), pipeline)
            })
            .collect()
    }
}

/// What is found out on the way.
#[derive(Default)]
struct Checked {
    files: Vec<FileReport>,
    problems: Vec<Problem>,
    failures: Vec<String>,
    /// How a base that cannot be had ends the program: the network may be what is missing.
    exit: Option<Exit>,
}

impl Checked {
    fn note<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.failures.push(format!("{error:#}")))
            .ok()
    }

    fn base(&mut self, name: &str, quiet: bool) -> Option<Opened> {
        let base = match open_base(name, quiet) {
            Ok(base) => base,
            Err(failure) => {
                self.failures.push(format!("{:#}", failure.error));
                self.exit = Some(failure.exit);
                return None;
            }
        };
        let weights = self.note(base.weights());
        let pipeline = self.note(base.text());
        Some(Opened {
            base,
            weights: weights?,
            pipeline: pipeline?,
        })
    }

    /// What is trained on, and what is held out where anything was to be.
    fn records(&mut self, args: &CheckArgs) -> Result<(Dataset, Option<Dataset>), Failure> {
        let training = self.survey(&args.data);
        if let Some(share) = args.hold_out {
            let (training, held_out) = training.split(HeldOut::share(share).map_err(usage)?);
            return Ok((training, Some(held_out)));
        }
        let held_out = (!args.eval_data.is_empty()).then(|| self.survey(&args.eval_data));
        Ok((training, held_out))
    }

    fn survey(&mut self, paths: &[PathBuf]) -> Dataset {
        let survey = Survey::of(paths);
        self.files.extend(survey.files);
        self.problems.extend(survey.problems);
        let failures = survey.failures.iter().map(ToString::to_string);
        self.failures.extend(failures);
        survey.dataset
    }

    fn prepare(
        &mut self,
        records: &Dataset,
        pipeline: &TextPipeline,
        options: &PrepareOptions,
    ) -> Option<Set> {
        let mut prepared = self.note(records.prepare_each(pipeline, options))?;
        self.problems.append(&mut prepared.problems);
        Some(Set {
            records: records.clone(),
            prepared,
        })
    }

    /// How long an epoch takes on a device that can be used.
    fn time(
        &mut self,
        args: &CheckArgs,
        lora: &LoraConfig,
        base: &Opened,
        prepared: &Prepared,
        estimate: &Estimate,
        quiet: bool,
    ) -> TimeSection {
        let mut section = steps(args, prepared);
        let mean = (prepared.report.tokens / prepared.examples.len().max(1)).max(2);
        let measured = if args.probe {
            if !quiet {
                eprintln!("measuring {PROBED} steps of {} x {mean} tokens", args.batch);
            }
            let speed = probe(args, lora, base, mean);
            self.note(speed).map(|speed| (speed, Measured::Step))
        } else {
            let rows = (mean * args.batch).min(2048);
            product_rate(&args.device, base.weights.config(), rows).map(|rate| {
                let speed = EFFICIENCY * rate / estimate.operations;
                (speed, Measured::Product)
            })
        };
        if let Some((speed, measured)) = measured {
            section.tokens_a_second = Some(speed);
            section.seconds_an_epoch = Some(section.tokens_an_epoch as f64 / speed);
            section.measured = Some(measured);
        }
        section
    }
}

fn steps(args: &CheckArgs, prepared: &Prepared) -> TimeSection {
    TimeSection {
        steps_an_epoch: prepared.examples.len().div_ceil(args.batch),
        tokens_an_epoch: prepared.report.tokens,
        tokens_a_second: None,
        seconds_an_epoch: None,
        measured: None,
    }
}

/// Tokens a second of whole steps on tokens that mean nothing.
fn probe(args: &CheckArgs, lora: &LoraConfig, base: &Opened, length: usize) -> anyhow::Result<f64> {
    let kind = args.base_dtype.unwrap_or(args.device.base_kind());
    let engine = Engine::with_kind(&base.weights, kind, base.base.name(), &args.device)?;
    let adapter = engine.init_adapter(lora, 0)?;
    let example = |number: usize| {
        let tokens = (0..length).map(|at| (31 * at + 7 * number) % engine.vocab_size());
        Example::new(tokens.map(|id| id as u32).collect(), vec![true; length])
    };
    let examples: Vec<_> = (0..args.batch).map(example).collect();
    let options = TrainOptions {
        batches: Batches::Continuous {
            batch_size: TrainOption::BatchSize.count(args.batch)?,
            shuffle: true,
            steps: TrainOption::Steps.count(PROBED + 1)?,
        },
        max_tokens: MaxTokens::new(length)?,
        memory: args.memory.into(),
        ..TrainOptions::default()
    };
    let mut begun = None;
    engine.train(&adapter, Factors::Both, &examples, &options, &mut |_| {
        begun.get_or_insert_with(Instant::now);
        std::ops::ControlFlow::Continue(())
    })?;
    let begun = begun.ok_or_else(|| anyhow!("the probe made no step"))?;
    Ok((PROBED * args.batch * length) as f64 / begun.elapsed().as_secs_f64())
}

fn memory_section(
    args: &CheckArgs,
    plan: &MemoryPlan<'_>,
    estimate: Estimate,
    available: Option<u64>,
) -> MemorySection {
    let (workload, kind) = (&plan.workload, plan.kind);
    MemorySection {
        rank: workload.rank,
        targets: workload.targets.iter().map(ToString::to_string).collect(),
        batch: args.batch,
        rows: workload.rows,
        base_dtype: kind.to_string(),
        total: estimate.total(kind, Memory::Normal),
        total_low: estimate.total(kind, Memory::Low),
        available,
        estimate,
    }
}
