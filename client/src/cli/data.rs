//! From files of records to examples, with a line on what became of them.

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_data::{DataReport, Dataset, PrepareOptions, TextPipeline};
use fedlora_model::Example;
use fedlora_shell::Failure;

use super::args::{DataSpec, HeldOutSpec};
use super::exits::data;

/// Examples to train on and held-out ones.
pub(super) struct Examples {
    pub(super) training: Vec<Example>,
    pub(super) held_out: Vec<Example>,
}

impl Examples {
    /// Reads the records and cuts the examples at `max_tokens`. `note` gets a line for each set.
    pub(super) fn read(
        spec: &DataSpec,
        pipeline: &TextPipeline,
        max_tokens: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, Failure> {
        let options = PrepareOptions { max_tokens };
        let records = Dataset::read(&spec.training).map_err(data)?;
        let (training, held_out) = match &spec.held_out {
            HeldOutSpec::Nothing => (records, Dataset::default()),
            HeldOutSpec::Files(files) => (records, Dataset::read(files).map_err(data)?),
            HeldOutSpec::Share { share, .. } => records.split(*share),
        };
        let mut prepare = |what, records: &Dataset| -> Result<Vec<Example>, Failure> {
            let (examples, report) = records.prepare(pipeline, &options).map_err(data)?;
            note(&data_line(what, &report, max_tokens));
            Ok(examples)
        };
        let training = prepare("training", &training)?;
        if training.is_empty() {
            let files: Vec<_> = spec.training.iter().map(|file| file.display()).collect();
            let files: Vec<_> = files.iter().map(ToString::to_string).collect();
            return Err(data(anyhow!(
                "there is no record to train on in {}",
                files.join(", ")
            )));
        }
        let held_out = match &spec.held_out {
            HeldOutSpec::Share { required: true, .. } if held_out.is_empty() => {
                return Err(Failure::new(
                    Exit::Data,
                    anyhow!("no record falls into the held-out share: there are too few records"),
                )
                .with_hint("use a larger --hold-out, or --eval-data FILE"));
            }
            _ if held_out.is_empty() => Vec::new(),
            _ => prepare("held out", &held_out)?,
        };
        Ok(Self { training, held_out })
    }
}

/// What became of the records, in a line.
fn data_line(what: &str, report: &DataReport, seq: usize) -> String {
    let mut line = format!(
        "{what}: {} examples, {} tokens, {} of them target tokens",
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
