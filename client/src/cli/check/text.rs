//! What `fedlora check` prints for people: sections of aligned lines.

use std::fmt::Write as _;

use fedlora_data::{LengthBin, Lengths};

use super::examples::{Marks, ShownExample, printable};
use super::numbers::{bytes, counted, duration, grouped, line, percent, short};
use super::report::{
    BaseSection, CheckReport, DeviceSection, Measured, MemorySection, SetSection, TimeSection,
};
use crate::cli::hints;

/// Longest bar of the histogram, in characters.
const BAR: usize = 40;

/// The whole report.
pub(super) fn text(report: &CheckReport, shown: &[ShownExample], marks: Marks) -> String {
    let mut out = String::new();
    if let Some(base) = &report.base {
        self::base(&mut out, base);
    }
    files(&mut out, report);
    if let Some(set) = &report.training {
        self::set(&mut out, "Training", set);
    }
    if let Some(set) = &report.held_out {
        self::set(&mut out, "Held out", set);
    }
    if !shown.is_empty() {
        line(&mut out, format_args!("First examples"));
        let how = match marks {
            Marks::Colour => "\x1b[32;4mtrained on\x1b[0m",
            Marks::Brackets => "[[trained on]]",
        };
        line(
            &mut out,
            format_args!("  as the model sees them, control tokens included; {how}"),
        );
        for (index, example) in shown.iter().enumerate() {
            example.write(&mut out, index + 1, marks);
        }
        out.push('\n');
    }
    if let Some(memory) = &report.memory {
        self::memory(&mut out, memory);
    }
    if let Some(time) = &report.time {
        self::time(&mut out, time);
    }
    device(&mut out, &report.device);
    doubtful(&mut out, report);
    refused(&mut out, report);
    out
}

/// What is left out, and what may be otherwise than meant.
fn doubtful(out: &mut String, report: &CheckReport) {
    for (index, dropped) in report.dropped.iter().enumerate() {
        let label = if index == 0 {
            "\nLeft out    "
        } else {
            "            "
        };
        line(
            out,
            format_args!("{label}{}", printable(&dropped.to_string())),
        );
    }
    for (index, warning) in report.warnings.iter().enumerate() {
        let label = if index == 0 {
            "\nWarning     "
        } else {
            "            "
        };
        line(
            out,
            format_args!("{label}{}", printable(&hints::warning(warning))),
        );
    }
}

fn base(out: &mut String, base: &BaseSection) {
    line(out, format_args!("Base        {}", base.name));
    let parameters = short(base.parameters as f64);
    line(
        out,
        format_args!(
            "            {}, {parameters} parameters: {} blocks of width {}, vocabulary {}, at most \
             {} tokens",
            base.architecture,
            base.blocks,
            base.hidden,
            grouped(base.vocabulary),
            grouped(base.positions)
        ),
    );
    if !base.chat_template {
        line(
            out,
            format_args!("            no chat template: plain text alone can be trained on"),
        );
    }
    out.push('\n');
}

fn files(out: &mut String, report: &CheckReport) {
    let width = report
        .files
        .iter()
        .map(|file| file.file.chars().count())
        .max();
    for (index, file) in report.files.iter().enumerate() {
        let label = if index == 0 { "Files" } else { "" };
        let width = width.unwrap_or(0);
        let mut said = format!("{:<width$}  {}", file.file, counted(file.records, "record"));
        if file.bad > 0 {
            let _ = write!(said, ", {} unusable", grouped(file.bad));
        }
        if file.empty > 0 {
            let _ = write!(said, ", {} left out: empty", grouped(file.empty));
        }
        if file.blank > 0 {
            let _ = write!(said, ", {}", counted(file.blank, "blank line"));
        }
        line(out, format_args!("{label:<12}{said}"));
    }
    if !report.files.is_empty() {
        out.push('\n');
    }
}

fn set(out: &mut String, label: &str, set: &SetSection) {
    let report = &set.report;
    let mut said = format!(
        "{}, {}",
        counted(report.records, "record"),
        counted(report.examples, "example")
    );
    if report.duplicates > 0 {
        let _ = write!(said, ", {} kept", counted(report.duplicates, "duplicate"));
    }
    line(out, format_args!("{label:<12}{said}"));
    if report.nothing_counted > 0 {
        line(
            out,
            format_args!(
                "            {} left out: nothing to train on within the first {} tokens",
                grouped(report.nothing_counted),
                grouped(set.seq)
            ),
        );
    }
    line(
        out,
        format_args!(
            "            {} tokens, {} of them trained on ({})",
            grouped(report.tokens),
            grouped(report.counted_tokens),
            percent(report.counted_tokens, report.tokens)
        ),
    );
    let truncated = match report.truncated {
        0 => format!("none is cut: all fit into {} tokens", grouped(set.seq)),
        cut => format!(
            "{} cut at {} tokens ({} of all): {} tokens lost",
            grouped(cut),
            grouped(set.seq),
            percent(cut, report.records),
            grouped(report.tokens_lost)
        ),
    };
    line(out, format_args!("            {truncated}"));
    if let Some(lengths) = &set.lengths {
        self::lengths(out, lengths);
    }
    out.push('\n');
}

fn lengths(out: &mut String, lengths: &Lengths) {
    line(
        out,
        format_args!(
            "            tokens a record: least {}, median {}, 90 % up to {}, 99 % up to {}, most \
             {}",
            grouped(lengths.min),
            grouped(lengths.median),
            grouped(lengths.p90),
            grouped(lengths.p99),
            grouped(lengths.max)
        ),
    );
    let most = lengths
        .histogram
        .iter()
        .map(|bin| bin.count)
        .max()
        .unwrap_or(0)
        .max(1);
    for &LengthBin { up_to, count } in &lengths.histogram {
        // Whatever there is can be seen.
        let bar = "#".repeat((count * BAR).div_ceil(most));
        let row = format!(
            "            {:>9} {bar:<BAR$} {}",
            format!("to {}", grouped(up_to)),
            grouped(count)
        );
        line(out, format_args!("{row}"));
    }
}

fn memory(out: &mut String, memory: &MemorySection) {
    let estimate = &memory.estimate;
    line(
        out,
        format_args!(
            "Memory      about {} (about {} with --memory low)",
            bytes(memory.total),
            bytes(memory.total_low)
        ),
    );
    let weights = estimate.weights;
    let kinds = [
        ("f32", weights.f32),
        ("bf16", weights.bf16),
        ("q8", weights.q8),
        ("q4", weights.q4),
    ];
    let own = |name: &str| name == memory.base_dtype;
    let held = kinds.iter().find(|(name, _)| own(name));
    let held = held.map_or(0, |(_, held)| *held);
    let others: Vec<_> = kinds
        .iter()
        .filter(|(name, _)| !own(name))
        .map(|(name, held)| format!("{} as {name}", bytes(*held)))
        .collect();
    for (what, held, note) in [
        (
            "base",
            held,
            format!("as {} ({})", memory.base_dtype, others.join(", ")),
        ),
        (
            "adapter",
            estimate.adapter,
            format!(
                "rank {}, {} weights, their gradients and AdamW's state",
                memory.rank,
                short(estimate.adapter_parameters as f64)
            ),
        ),
        (
            "activations",
            estimate.activations,
            format!(
                "{} tokens, the {} longest examples",
                grouped(memory.rows),
                memory.batch
            ),
        ),
        (
            "working",
            estimate.working,
            "one block's gradients and a part of the logits".to_owned(),
        ),
        (
            "program",
            memory
                .total
                .saturating_sub(held + estimate.adapter + estimate.activations + estimate.working),
            "itself, the tokenizer, and what the allocator holds".to_owned(),
        ),
    ] {
        line(
            out,
            format_args!("            {what:<12}{:>11}  {note}", bytes(held)),
        );
    }
    if let Some(available) = memory.available {
        let verdict = if memory.total <= available {
            "it fits"
        } else if memory.total_low <= available {
            "it fits with --memory low only"
        } else {
            "it does not fit: a smaller --batch or --seq, or a base of fewer bits, would take less"
        };
        line(
            out,
            format_args!(
                "            {:<12}{:>11}  {verdict}",
                "available",
                bytes(available)
            ),
        );
    }
    out.push('\n');
}

fn time(out: &mut String, time: &TimeSection) {
    let epoch = format!(
        "an epoch is {} of {} tokens in all",
        counted(time.steps_an_epoch, "step"),
        grouped(time.tokens_an_epoch)
    );
    line(out, format_args!("Time        {epoch}"));
    if let (Some(seconds), Some(speed)) = (time.seconds_an_epoch, time.tokens_a_second) {
        let basis = match time.measured {
            Some(Measured::Step) => "measured on steps like these",
            _ => "a guess from one matrix product; --probe measures steps",
        };
        line(
            out,
            format_args!(
                "            about {} an epoch at {} tokens a second ({basis})",
                duration(seconds),
                short(speed)
            ),
        );
    }
    out.push('\n');
}

fn device(out: &mut String, device: &DeviceSection) {
    let cpu = &device.machine.cpu;
    let state = match &device.error {
        None => "can be used".to_owned(),
        Some(error) => format!("cannot be used: {error}"),
    };
    line(out, format_args!("Device      {} {state}", device.name));
    let features = if cpu.features.is_empty() {
        "no vector extensions that are used".to_owned()
    } else {
        cpu.features.join(", ")
    };
    let name = cpu.name.as_deref().unwrap_or("unknown");
    line(
        out,
        format_args!(
            "            processor   {name}, {}, {features}",
            counted(cpu.processors, "thread")
        ),
    );
    if let (Some(total), Some(available)) = (cpu.memory_total, cpu.memory_available) {
        line(
            out,
            format_args!(
                "            memory      {}, {} available",
                bytes(total),
                bytes(available)
            ),
        );
    }
    let cuda = &device.machine.cuda;
    let there = |path: &Option<std::path::PathBuf>| match path {
        Some(path) => path.display().to_string(),
        None => "not found".to_owned(),
    };
    let built = if cuda.built_in {
        "built in"
    } else {
        "not built in (--features cuda)"
    };
    let driver = cuda.driver.as_deref().unwrap_or("not loaded");
    line(
        out,
        format_args!("            CUDA        {built}; driver {driver}"),
    );
    line(
        out,
        format_args!(
            "                        libcuda {}, libnvrtc {}",
            there(&cuda.libcuda),
            there(&cuda.libnvrtc)
        ),
    );
    for (index, name) in cuda.devices.iter().enumerate() {
        line(
            out,
            format_args!("                        cuda:{index} {name}"),
        );
    }
}

fn refused(out: &mut String, report: &CheckReport) {
    for failure in &report.failures {
        line(out, format_args!("\nUnusable    {}", printable(failure)));
    }
    if report.problems.is_empty() {
        return;
    }
    line(
        out,
        format_args!("\nUnusable    {}", counted(report.problems.len(), "record")),
    );
    for entry in &report.problems {
        let element = match entry.element {
            Some(element) => format!(" (record {element})"),
            None => String::new(),
        };
        let problem = printable(&entry.problem);
        line(
            out,
            format_args!("  {}:{}{element}: {problem}", entry.file, entry.line),
        );
    }
}
