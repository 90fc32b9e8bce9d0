//! `fedlora check` for people: sections of aligned lines, and examples with what is trained on
//! marked.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use fedlora_data::{Bin, Lengths, TextPipeline};
use fedlora_model::Example;

use super::check_report::{
    BaseSection, DeviceSection, Measured, MemorySection, Report, SetSection, TimeSection,
};

/// Longest bar of the histogram, in characters.
const BAR: usize = 40;
/// Characters of a stretch of text that are shown; of a longer one, its two ends.
const SHOWN: usize = 1600;

/// How trained-on text is told from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Green and underlined.
    Colour,
    /// Between `[[` and `]]`.
    Brackets,
}

impl Marks {
    /// Those that standard output takes.
    pub(super) fn of_output() -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() && !plain {
            Self::Colour
        } else {
            Self::Brackets
        }
    }
}

/// An example to be shown. Private text: it goes to the member's own terminal alone.
pub(super) struct Shown {
    place: String,
    tokens: usize,
    counted: usize,
    /// Stretches of text, and whether they are trained on.
    stretches: Vec<(String, bool)>,
}

impl Shown {
    pub(super) fn of(example: &Example, place: String, pipeline: &TextPipeline) -> Self {
        let (tokens, loss) = (example.tokens(), example.loss());
        let mut stretches = Vec::new();
        let (mut start, mut before) = (0, String::new());
        while start < tokens.len() {
            let run = loss[start..]
                .iter()
                .take_while(|&&c| c == loss[start])
                .count();
            let end = start + run;
            // A stretch reads as it does behind all that precedes it.
            let through = pipeline.decode_whole(&tokens[..end]).unwrap_or_default();
            let text = match through.strip_prefix(&before) {
                Some(text) => text.to_owned(),
                None => pipeline
                    .decode_whole(&tokens[start..end])
                    .unwrap_or_default(),
            };
            stretches.push((text, loss[start]));
            (start, before) = (end, through);
        }
        Self {
            place,
            tokens: tokens.len(),
            counted: example.counted(),
            stretches,
        }
    }

    fn write(&self, out: &mut String, number: usize, marks: Marks) {
        let (tokens, counted) = (grouped(self.tokens), grouped(self.counted));
        line(
            out,
            format_args!(
                "  {number}. {}: {tokens} tokens, {counted} of them trained on",
                self.place
            ),
        );
        let mut text = String::new();
        for (stretch, counted) in &self.stretches {
            let stretch = printable(&shortened(stretch));
            match (counted, marks) {
                (false, _) => text.push_str(&stretch),
                (true, Marks::Brackets) => {
                    text.push_str("[[");
                    text.push_str(&stretch);
                    text.push_str("]]");
                }
                (true, Marks::Colour) => {
                    // Each line by itself, so that the margin stays as it is.
                    let lines: Vec<_> = stretch
                        .split('\n')
                        .map(|line| match line {
                            "" => String::new(),
                            line => format!("\x1b[32;4m{line}\x1b[0m"),
                        })
                        .collect();
                    text.push_str(&lines.join("\n"));
                }
            }
        }
        for row in text.split('\n') {
            line(out, format_args!("     | {row}"));
        }
    }
}

/// The two ends of a text that is too long.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN {
        return text.to_owned();
    }
    let start: String = text.chars().take(SHOWN / 2).collect();
    let end: String = text.chars().skip(count - SHOWN / 2).collect();
    let left_out = grouped(count - SHOWN / 2 * 2);
    format!("{start}\n... {left_out} characters ...\n{end}")
}

/// Text that cannot do anything to a terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Prints the whole report.
pub(super) fn print(report: &Report, shown: &[Shown], marks: Marks) {
    let text = text(report, shown, marks);
    // Whoever closed the output does not want the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn text(report: &Report, shown: &[Shown], marks: Marks) -> String {
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
    refused(&mut out, report);
    out
}

fn base(out: &mut String, base: &BaseSection) {
    line(out, format_args!("Base        {}", base.name));
    let parameters = short(base.parameters as f64);
    line(
        out,
        format_args!(
            "            {}, {parameters} parameters: {} blocks of width {}, vocabulary {}, at most {} tokens",
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

fn files(out: &mut String, report: &Report) {
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
            "            tokens a record: least {}, median {}, 90 % up to {}, 99 % up to {}, most {}",
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
    for &Bin { up_to, count } in &lengths.histogram {
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
            format_args!("            {what:<12}{:>10}  {note}", bytes(held)),
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
                "            {:<12}{:>10}  {verdict}",
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

fn refused(out: &mut String, report: &Report) {
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

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A `String` takes all.
    let _ = writeln!(out, "{}", text.to_string().trim_end());
}

/// A number with its thing.
fn counted(count: usize, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        count => format!("{} {thing}s", grouped(count)),
    }
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits or so.
fn short(number: f64) -> String {
    for (unit, name) in [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")] {
        if number >= unit {
            return format!("{:.1}{name}", number / unit);
        }
    }
    format!("{number:.0}")
}

fn bytes(count: u64) -> String {
    let count = count as f64;
    for (power, name) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let unit = f64::from(1_u32 << power);
        if count >= unit {
            return format!("{:.1} {name}", count / unit);
        }
    }
    format!("{count} bytes")
}

fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{:.0} s", s.max(1.0)),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            counted(1, "record") + &counted(2000, "record"),
            "1 record2,000 records"
        );
        assert_eq!([12.3, 1234.0, 8.03e9].map(short), ["12", "1.2 k", "8.0 G"]);
        assert_eq!(
            [12, 1536, 5 << 30].map(bytes),
            ["12 bytes", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!(
            [0.2, 300.0, 9000.0, 259_200.0].map(duration),
            ["1 s", "5 min", "2.5 h", "3.0 days"]
        );
        assert_eq!(percent(0, 0), "0.0 %");
    }

    #[test]
    fn text_that_would_command_the_terminal_is_made_harmless() {
        assert_eq!(printable("a\x1b[2Jb\tc\nd\r"), "a\\u{1b}[2Jb\tc\nd\\u{d}");
        let long = "x".repeat(SHOWN + 500);
        let short = shortened(&long);
        assert!(short.contains("... 500 characters ..."));
        assert_eq!(shortened(&short[..100]), short[..100]);
    }

    #[test]
    fn what_is_trained_on_is_marked() {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/assets/base");
        let pipeline = TextPipeline::from_folder(&base).unwrap();
        let turns = [("user", "Why?"), ("assistant", "So.\nIndeed.")].map(|(role, content)| {
            fedlora_data::Turn {
                role,
                content: content.to_owned(),
            }
        });
        let example = pipeline.chat(&turns).unwrap();
        let shown = Shown::of(&example, "f.jsonl:3".to_owned(), &pipeline);
        let rendered = |marks| {
            let mut out = String::new();
            shown.write(&mut out, 1, marks);
            out
        };
        let plain = rendered(Marks::Brackets);
        let (head, text) = plain.split_once('\n').unwrap();
        assert!(
            head.starts_with("  1. f.jsonl:3: ") && head.ends_with("trained on"),
            "{head}"
        );
        assert_eq!(
            text,
            "     | <|begin_of_text|><|start_header_id|>user<|end_header_id|>\n     |\n     | \
             Why?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n     |\n     | \
             [[So.\n     | Indeed.<|eot_id|>]]\n"
        );
        let coloured = rendered(Marks::Colour);
        assert!(coloured.contains("| \x1b[32;4mSo.\x1b[0m\n     | \x1b[32;4mIndeed."));
    }
}
