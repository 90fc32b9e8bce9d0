//! `fedlora check`: what training would use, before it begins.
//!
//! Continues past whatever is wrong, so that one call shows all of it. Records are shown on the
//! member's own terminal alone: nowhere else does their text leave the program.

mod args;
mod examples;
mod numbers;
mod report;
mod survey;
mod text;
mod time;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_data::{DataError, PrepareOptions};
use fedlora_model::ActivationCheckpointing;
use fedlora_shell::{Failure, Format, Printer};
use fedlora_train::{DoesNotFit, Estimate, Machine, MemoryPlan, check_device, free_memory};

use super::args::HeldOutSpec;
use super::exits::usage;
use super::hints;
use super::memory::{TrainingWork, memory_plan};
pub(super) use args::CheckArgs;
use examples::Marks;
use report::{CheckReport, DeviceSection, MemorySection, ProblemEntry};
use survey::{Checked, CheckedBase};
use time::TimedWork;

/// Tokens at which examples are cut by default, where the base takes as many.
const SEQ: usize = 1024;

/// Runs the command.
pub(super) fn run(args: &CheckArgs, printer: &Printer) -> Result<(), Failure> {
    let lora = args.lora().map_err(usage)?;
    let model = args.model.resolve()?;
    let mut checked = Checked::default();
    let base = checked.base(&model.base, printer);
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
    let spec = args.data.resolve(HeldOutSpec::Nothing);
    let (training, held_out) = checked.records(&spec);
    let options = PrepareOptions {
        end_texts: spec.records.end_texts,
        ..PrepareOptions::new(seq)
    };
    let pipeline = base.as_ref().map(|base| &base.pipeline);
    let training = pipeline.and_then(|text| checked.prepare(&training, text, &options));
    let held_out = held_out
        .and_then(|records| pipeline.and_then(|text| checked.prepare(&records, text, &options)));
    let prepared = training
        .as_ref()
        .filter(|set| !set.prepared.examples.is_empty());

    let machine = Machine::look();
    let device_error = check_device(&model.device).err();
    let mut hint = None;
    let (mut memory, mut timing) = (None, None);
    if let (Some(base), Some(set)) = (&base, prepared) {
        let config = base.weights.config();
        let work = TrainingWork {
            lora: &lora,
            training: &set.prepared.examples,
            held_out: held_out
                .as_ref()
                .map_or(&[], |set| &set.prepared.examples[..]),
            batch: args.batch,
            seq,
            packed: false,
        };
        let plan = memory_plan(&model, config, work, args.memory.resolve());
        let estimate = Estimate::of(config, &plan.workload);
        timing = Some(if device_error.is_none() {
            let work = TimedWork {
                args,
                model: &model,
                lora: &lora,
                base,
            };
            time::time(&mut checked, &work, &set.prepared, &estimate, printer)
        } else {
            time::steps(args, &set.prepared)
        });
        // The device's section tells what is wrong with the device.
        let available = free_memory(&model.device).ok().flatten();
        if let Some(available) = available {
            let fits = plan.check(available);
            hint = fits.as_ref().err().and_then(DoesNotFit::remedy);
            checked.note(fits);
        }
        memory = Some(memory_section(args.batch, &plan, estimate, available));
    }
    if let Some(base) = &base {
        checked
            .warnings
            .extend(base.pipeline.warnings().iter().cloned());
    }
    // Whether a training would go on past them.
    let of = checked
        .files
        .iter()
        .map(|file| file.records + file.bad)
        .sum();
    let stopped = spec
        .records
        .bad_records
        .check(checked.problems.clone(), of)
        .err();
    let losing = spec.records.strict && !checked.dropped.is_empty();
    let refusal = match (stopped, losing) {
        (Some(stopped), _) => stopped.remedy(),
        (None, true) => DataError::Dropped(Vec::new()).remedy(),
        (None, false) => None,
    };
    checked.problems.sort_by(|a, b| a.place.cmp(&b.place));
    let hint = device_error
        .as_ref()
        .and_then(|error| error.remedy())
        .or(hint)
        .map(|remedy| hints::train(&remedy))
        .or_else(|| refusal.map(hints::data));
    let device_error = device_error.map(|error| error.to_string());
    let report = CheckReport {
        usable: refusal.is_none()
            && checked.failures.is_empty()
            && device_error.is_none()
            && prepared.is_some(),
        base: base.as_ref().map(CheckedBase::section),
        files: checked.files,
        training: training.as_ref().map(|set| set.section(seq)),
        held_out: held_out.as_ref().map(|set| set.section(seq)),
        memory,
        time: timing,
        device: DeviceSection {
            name: model.device.to_string(),
            error: device_error,
            machine,
        },
        failures: checked.failures,
        problems: checked.problems.iter().map(ProblemEntry::from).collect(),
        dropped: checked.dropped,
        warnings: checked.warnings.into_iter().collect(),
    };
    match printer.format() {
        Format::Json => printer.document(&report),
        Format::Text => {
            let shown = match (&training, pipeline) {
                (Some(set), Some(pipeline)) => set.shown(args.show, pipeline),
                _ => Vec::new(),
            };
            let text = text::text(&report, &shown, Marks::of_output());
            printer.write(|out| out.write_all(text.as_bytes()));
        }
    }
    verdict(&report, losing, checked.exit.unwrap_or(Exit::Data))
        .map_err(|failure| failure.with_hint_if(hint))
}

/// The failure where something keeps the data from being used.
fn verdict(report: &CheckReport, losing: bool, exit: Exit) -> Result<(), Failure> {
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
    let losing = losing.then(|| "training would leave something out of the records".to_owned());
    let said: Vec<_> = report
        .failures
        .iter()
        .cloned()
        .chain(report.device.error.clone())
        .chain(lines)
        .chain(losing)
        .chain(nothing)
        .collect();
    Err(Failure::new(exit, anyhow!("{}", said.join("; "))))
}

fn memory_section(
    batch: usize,
    plan: &MemoryPlan<'_>,
    estimate: Estimate,
    available: Option<u64>,
) -> MemorySection {
    let (workload, kind) = (&plan.workload, plan.kind);
    MemorySection {
        rank: workload.rank,
        targets: workload.targets.iter().map(ToString::to_string).collect(),
        batch,
        rows: workload.rows,
        base_dtype: kind.to_string(),
        total: estimate.total(kind, ActivationCheckpointing::Off),
        total_low: estimate.total(kind, ActivationCheckpointing::PerBlock),
        available,
        estimate,
    }
}
