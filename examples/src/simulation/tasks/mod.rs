//! What a simulation scores besides the perplexity: labels and free text of held-out records.
//!
//! Responses that several training records have are labels, and held-out records with one of them
//! are classified. The others are free text, which is generated. So one data set may have both.

mod classify;
mod generate;
mod labels;

use std::collections::HashMap;
use std::num::NonZeroUsize;

use clap::ValueEnum;
use fedlora_adapter::Adapter;
use fedlora_common::digest::Digest;
use fedlora_train::decode::Decoder;
use fedlora_train::eval::EvaluationError;

use super::base::OpenBase;
use super::data::SimulationData;
use super::options::Options;
use super::report::{ClassificationFigures, EvaluationFigures, GenerationFigures};
use super::scene::{Scene, in_parallel};
use classify::ClassifyTask;
use generate::GenerateTask;
use labels::LabelledData;

/// What is scored besides the perplexity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TaskKind {
    /// Macro-F1 and accuracy of the likeliest label, beside TF-IDF and logistic regression.
    Classify,
    /// ROUGE-L of greedy responses in free text.
    Generate,
}

/// Tokens after which a response is cut.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(128).expect("above 0");

/// The tasks of one run, ready to be scored with any adapter.
#[derive(Debug)]
pub(super) struct Tasks<'a> {
    classify: Option<ClassifyTask>,
    generate: Option<GenerateTask<'a>>,
}

impl<'a> Tasks<'a> {
    /// Finds labels and free text in the records, as far as the options ask for them.
    ///
    /// # Errors
    /// Records without a response, or of which a task cannot use any.
    pub(super) fn prepare(
        options: &Options,
        data: &SimulationData,
        base: &'a OpenBase,
    ) -> anyhow::Result<Self> {
        let asked = |task| options.task.contains(&task);
        let mut tasks = Self {
            classify: None,
            generate: None,
        };
        if options.task.is_empty() {
            return Ok(tasks);
        }
        let data = LabelledData::new(data)?;
        if asked(TaskKind::Classify) {
            tasks.classify = Some(ClassifyTask::new(&data, base)?);
        }
        if asked(TaskKind::Generate) {
            tasks.generate = Some(GenerateTask::new(&data, base, options.responses)?);
        }
        Ok(tasks)
    }

    /// Scores the adapters of each way.
    ///
    /// # Errors
    /// An adapter that does not fit the base.
    pub(super) fn scores(
        &self,
        scene: &Scene<'_>,
        adapters: &EvaluationFigures<Answering<'_>>,
    ) -> anyhow::Result<(Option<ClassificationFigures>, Option<GenerationFigures>)> {
        let classify = self.classify.as_ref();
        let classified = classify.map(|task| task.figures(scene, adapters));
        let generate = self.generate.as_ref();
        let generated = generate.map(|task| task.figures(scene, adapters));
        Ok((classified.transpose()?, generated.transpose()?))
    }
}

/// What answers each member's records.
#[derive(Debug, Clone)]
pub(super) enum Answering<'a> {
    /// The base alone.
    Base,
    /// One adapter for all members.
    Shared(&'a Adapter),
    /// Each member's own, in the members' order.
    Own(Vec<&'a Adapter>),
}

impl<'a> Answering<'a> {
    /// What answers the records of a member.
    pub(super) fn of(&self, member: usize) -> Option<&'a Adapter> {
        match self {
            Self::Base => None,
            Self::Shared(adapter) => Some(adapter),
            Self::Own(adapters) => Some(adapters[member]),
        }
    }
}

/// What adapters did at members' records; each adapter does it once at a member.
struct Known<'a, T> {
    scene: &'a Scene<'a>,
    outcomes: HashMap<(usize, Option<Digest>), T>,
}

impl<'a, T: Clone + Send> Known<'a, T> {
    fn new(scene: &'a Scene<'a>) -> Self {
        Self {
            scene,
            outcomes: HashMap::new(),
        }
    }

    /// What `job` gives for each member's number and decoder, in the members' order.
    fn of_each(
        &mut self,
        answering: &Answering<'_>,
        job: impl Fn(usize, &Decoder) -> Result<T, EvaluationError> + Sync,
    ) -> Result<Vec<T>, EvaluationError> {
        let members = self.scene.data.institutions.len();
        let key = |member| (member, answering.of(member).map(Adapter::digest));
        let unknown = |member: &usize| !self.outcomes.contains_key(&key(*member));
        let missing: Vec<usize> = (0..members).filter(unknown).collect();
        let made = in_parallel(self.scene.jobs, missing.len(), |place| {
            let member = missing[place];
            let decoder = self.scene.engine.decoder(answering.of(member))?;
            job(member, &decoder)
        })?;
        let keys = missing.iter().map(|member| key(*member));
        self.outcomes.extend(keys.zip(made));
        Ok((0..members)
            .map(|member| self.outcomes[&key(member)].clone())
            .collect())
    }
}
