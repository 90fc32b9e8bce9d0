//! From files of records to examples, with a line on what became of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::anyhow;
use fedlora_common::exit::Exit;
use fedlora_data::{
    BadRecords, DataError, DataReport, Dataset, Dropped, PrepareOptions, Prepared, Problem, Survey,
    TextPipeline, Warning,
};
use fedlora_model::Example;
use fedlora_shell::Failure;

use super::args::{DataSpec, HeldOutSpec, RecordSpec};
use super::exits::data;
use super::hints;

/// Examples to train on and held-out ones.
pub(super) struct Examples {
    pub(super) training: Vec<Example>,
    pub(super) held_out: Vec<Example>,
    /// What is skipped, left out or doubtful, a line each. It is said even where notes are not.
    pub(super) doubts: Vec<String>,
}

impl Examples {
    /// Reads the records and cuts the examples at `max_tokens`. `note` gets a line for each set.
    pub(super) fn read(
        spec: &DataSpec,
        pipeline: &TextPipeline,
        max_tokens: usize,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, Failure> {
        let options = PrepareOptions {
            end_texts: spec.records.end_texts,
            ..PrepareOptions::new(max_tokens)
        };
        let mut sets = Sets::new(spec.records);
        let records = sets.records(&spec.training)?;
        let (training, held_out) = match &spec.held_out {
            HeldOutSpec::Nothing => (records, Dataset::default()),
            HeldOutSpec::Files(files) => (records, sets.records(files)?),
            HeldOutSpec::Share { share, .. } => records.split(*share),
        };
        let mut prepare = |what, records: &Dataset| -> Result<Vec<Example>, Failure> {
            let prepared = sets.prepare(records, pipeline, &options)?;
            note(&data_line(what, &prepared.report, max_tokens));
            Ok(prepared.examples)
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
        let doubts = sets.doubts(pipeline)?;
        Ok(Self {
            training,
            held_out,
            doubts,
        })
    }
}

/// All sets of records that a command reads, and what there is to say of them.
pub(super) struct Sets {
    spec: RecordSpec,
    problems: Vec<Problem>,
    /// Records that can be used and that cannot.
    of: usize,
    dropped: Vec<Dropped>,
    warnings: BTreeSet<Warning>,
}

impl Sets {
    pub(super) fn new(spec: RecordSpec) -> Self {
        Self {
            spec,
            problems: Vec::new(),
            of: 0,
            dropped: Vec::new(),
            warnings: BTreeSet::new(),
        }
    }

    pub(super) fn records(&mut self, files: &[PathBuf]) -> Result<Dataset, Failure> {
        if self.spec.bad_records == BadRecords::Stop {
            let records = Dataset::read(files).map_err(data)?;
            self.of += records.len();
            return Ok(records);
        }
        let mut survey = Survey::of(files);
        if let Some(failure) = survey.failures.into_iter().next() {
            return Err(data(failure));
        }
        self.of += survey.dataset.len() + survey.problems.len();
        self.problems.append(&mut survey.problems);
        Ok(survey.dataset)
    }

    /// The examples of `records`, and what became of each.
    pub(super) fn prepare(
        &mut self,
        records: &Dataset,
        pipeline: &TextPipeline,
        options: &PrepareOptions,
    ) -> Result<Prepared, Failure> {
        let mut prepared = records
            .prepare_each(pipeline, options)
            .map_err(|error| data(DataError::from(error)))?;
        self.problems.append(&mut prepared.problems);
        if self.spec.bad_records == BadRecords::Stop {
            self.check_bad()?;
        }
        let report = prepared.report;
        if prepared.examples.is_empty() && !self.problems.is_empty() {
            self.check_bad()?;
        }
        if prepared.examples.is_empty() && report.records > 0 {
            return Err(data(DataError::NothingCounted {
                records: report.records,
                max_tokens: options.max_tokens,
            }));
        }
        let dropped = std::mem::take(&mut prepared.dropped);
        self.dropped = Dropped::merged(std::mem::take(&mut self.dropped), dropped);
        self.warnings.extend(prepared.warnings.drain(..));
        Ok(prepared)
    }

    /// The records that no problem was found with so far.
    pub(super) fn usable(&self, records: Dataset) -> Dataset {
        records.without(&self.problems)
    }

    fn check_bad(&mut self) -> Result<Option<String>, Failure> {
        let problems = std::mem::take(&mut self.problems);
        self.spec.bad_records.check(problems, self.of).map_err(data)
    }

    /// What is skipped, left out and doubtful; refuses what may not be.
    pub(super) fn doubts(mut self, pipeline: &TextPipeline) -> Result<Vec<String>, Failure> {
        let mut doubts: Vec<String> = self.check_bad()?.into_iter().collect();
        if self.spec.strict && !self.dropped.is_empty() {
            return Err(data(DataError::Dropped(self.dropped)));
        }
        let dropped = self.dropped.iter();
        doubts.extend(dropped.map(|dropped| format!("left out: {dropped}")));
        let warnings = pipeline.warnings().iter().chain(&self.warnings);
        doubts.extend(warnings.map(|one| format!("warning: {}", hints::warning(one))));
        Ok(doubts)
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
