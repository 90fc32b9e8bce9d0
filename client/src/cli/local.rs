//! What the commands that only read a base model share: opening it with an adapter, and the
//! exit codes of what can go wrong.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use fedlora_adapter::{Adapter, peft};
use fedlora_client::base::Base;
use fedlora_common::exit::Exit;
use fedlora_data::{DataReport, TextPipeline};
use fedlora_model::WeightKind;
use fedlora_train::{Device, Engine};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;
use super::fetch::open_base;

/// A base model on its device, with its text and an adapter that fits it.
pub(super) struct Opened {
    pub(super) base: Base,
    pub(super) pipeline: TextPipeline,
    pub(super) engine: Engine,
    pub(super) adapter: Option<Adapter>,
}

/// Opens all that a model needs. What is small comes first: a wrong adapter should not cost
/// the reading of a model.
pub(super) fn open(
    base: &str,
    adapter: Option<&Path>,
    kind: Option<WeightKind>,
    device: &Device,
    quiet: bool,
) -> Result<Opened, Failure> {
    let adapter = adapter
        .map(|folder| {
            peft::load(folder).with_context(|| format!("the adapter {}", folder.display()))
        })
        .transpose()
        .map_err(data)?;
    let base = open_base(base, quiet)?;
    let pipeline = base.text().map_err(data)?;
    let weights = base.weights().map_err(data)?;
    let kind = kind.unwrap_or(device.base_kind());
    let engine = Engine::with_kind(&weights, kind, base.name(), device).map_err(data)?;
    // Refuses an adapter of another model.
    engine.decoder(adapter.as_ref()).map_err(data)?;
    Ok(Opened {
        base,
        pipeline,
        engine,
        adapter,
    })
}

/// What became of the records, in a line.
pub(super) fn data_line(what: &str, report: &DataReport, seq: usize) -> String {
    let mut line = format!(
        "{what}: {} examples, {} tokens, of which {} count",
        report.examples, report.tokens, report.counted_tokens
    );
    if report.truncated > 0 {
        line.push_str(&format!(
            "; {} cut at {seq} tokens (the longest has {})",
            report.truncated, report.longest
        ));
    }
    if report.nothing_counted > 0 {
        line.push_str(&format!(
            "; {} left out: no response within {seq} tokens",
            report.nothing_counted
        ));
    }
    if report.empty > 0 {
        line.push_str(&format!("; {} left out: empty", report.empty));
    }
    if report.duplicates > 0 {
        line.push_str(&format!("; {} duplicates", report.duplicates));
    }
    line
}

/// A failure of data, model or device.
pub(super) fn data(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Data, error)
}

/// A failure of the command line.
pub(super) fn usage(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::Usage, error)
}

/// A bar on standard error, on a terminal alone.
pub(super) fn bar(what: &'static str, count: usize, quiet: bool) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() && !quiet {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {eta}")
        .expect("the template is well-formed");
    let bar = ProgressBar::with_draw_target(Some(count as u64), target).with_style(style);
    bar.set_prefix(what);
    bar
}
