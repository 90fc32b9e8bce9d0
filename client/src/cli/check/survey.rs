//! What a check reads: the base model, the files of records, the examples made of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use fedlora_common::exit::Exit;
use fedlora_data::{
    Dataset, Dropped, FileReport, Lengths, PrepareOptions, Prepared, Problem, Survey, TextPipeline,
    Warning,
};
use fedlora_model::{BaseWeights, LlamaConfig};
use fedlora_shell::Printer;

use super::examples::ShownExample;
use super::report::{BaseSection, SetSection};
use crate::base::Base;
use crate::cli::args::{DataSpec, HeldOutSpec};
use crate::cli::open::open_base;

/// What a check has found so far. It does not end at the first problem.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) files: Vec<FileReport>,
    pub(super) problems: Vec<Problem>,
    pub(super) failures: Vec<String>,
    pub(super) dropped: Vec<Dropped>,
    pub(super) warnings: BTreeSet<Warning>,
    /// The exit code for a base that cannot be had: the network may be what is missing.
    pub(super) exit: Option<Exit>,
}

impl Checked {
    /// The value, or a failure noted.
    pub(super) fn note<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.failures.push(format!("{error:#}")))
            .ok()
    }

    pub(super) fn base(&mut self, name: &str, printer: &Printer) -> Option<CheckedBase> {
        let base = match open_base(name, printer) {
            Ok(base) => base,
            Err(failure) => {
                self.failures.push(failure.message());
                self.exit = Some(failure.exit());
                return None;
            }
        };
        let weights = self.note(base.weights());
        let pipeline = self.note(base.text());
        Some(CheckedBase {
            base,
            weights: weights?,
            pipeline: pipeline?,
        })
    }

    /// The records to train on, and the held-out ones where there are to be any.
    pub(super) fn records(&mut self, spec: &DataSpec) -> (Dataset, Option<Dataset>) {
        let training = self.survey(&spec.training);
        match &spec.held_out {
            HeldOutSpec::Nothing => (training, None),
            HeldOutSpec::Files(files) => (training, Some(self.survey(files))),
            HeldOutSpec::Share { share, .. } => {
                let (training, held_out) = training.split(*share);
                (training, Some(held_out))
            }
        }
    }

    fn survey(&mut self, paths: &[PathBuf]) -> Dataset {
        let survey = Survey::of(paths);
        self.files.extend(survey.files);
        self.problems.extend(survey.problems);
        let failures = survey.failures.iter().map(ToString::to_string);
        self.failures.extend(failures);
        survey.dataset
    }

    pub(super) fn prepare(
        &mut self,
        records: &Dataset,
        pipeline: &TextPipeline,
        options: &PrepareOptions,
    ) -> Option<PreparedSet> {
        let mut prepared = self.note(records.prepare_each(pipeline, options))?;
        self.problems.append(&mut prepared.problems);
        let dropped = std::mem::take(&mut prepared.dropped);
        self.dropped = Dropped::merged(std::mem::take(&mut self.dropped), dropped);
        self.warnings.extend(prepared.warnings.drain(..));
        Some(PreparedSet {
            records: records.clone(),
            prepared,
        })
    }
}

/// A base model that can be used.
pub(super) struct CheckedBase {
    pub(super) base: Base,
    pub(super) weights: BaseWeights,
    pub(super) pipeline: TextPipeline,
}

impl CheckedBase {
    pub(super) fn section(&self) -> BaseSection {
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
pub(super) struct PreparedSet {
    pub(super) records: Dataset,
    pub(super) prepared: Prepared,
}

impl PreparedSet {
    pub(super) fn section(&self, seq: usize) -> SetSection {
        SetSection {
            report: self.prepared.report,
            seq,
            lengths: Lengths::of(&self.prepared.lengths),
        }
    }

    pub(super) fn shown(&self, count: usize, pipeline: &TextPipeline) -> Vec<ShownExample> {
        let origins = self.prepared.origins.iter();
        let examples = self.prepared.examples.iter().zip(origins).take(count);
        examples
            .map(|(example, &origin)| {
                let place = self.records.records()[origin].place();
                ShownExample::of(example, place.to_string(), pipeline)
            })
            .collect()
    }
}
