//! The simulation's outcome, as JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use fedlora_client::personal::Choice;
use fedlora_protocol::ids::RoundNumber;
use fedlora_protocol::plan::{RunEnd, RunPlan};
use serde::Serialize;
use serde_json::Value;

/// The one document that `--format json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// What the run is called among those that are compared; nothing for a single run.
    pub label: Option<String>,
    /// The base model.
    pub base: String,
    /// The seed.
    pub seed: u64,
    /// Which factors are trained: `alternating`, `freeze-a` or `both`.
    pub factors: fedlora_protocol::plan::FactorSchedule,
    /// The plan's groups and their rule; none where all are in one sum.
    pub robust: Option<fedlora_protocol::plan::RobustPlan>,
    /// The plan that was run.
    pub plan: RunPlan,
    /// Where the members' records are from.
    pub partition: String,
    /// The members that were poisoned on purpose.
    pub poisoned: Vec<PoisonFigures>,
    /// The members.
    pub members: Vec<MemberFigures>,
    /// Those that joined after the run.
    pub newcomers: Vec<NewcomerFigures>,
    /// The rounds.
    pub rounds: Vec<RoundFigures>,
    /// Whether the plan's patience ended the run before its last round.
    pub stopped_early: bool,
    /// The round whose adapter is the run's result; 0 for the first adapter.
    pub best_round: u32,
    /// Held-out perplexities after each round, where they were evaluated.
    pub curves: Vec<CurveFigures>,
    /// Held-out perplexities.
    pub eval: EvaluationFigures,
    /// How well the adapters classify held-out records, where that was asked for.
    pub classification: Option<ClassificationFigures>,
    /// How well they answer in free text, where that was asked for.
    pub generation: Option<GenerationFigures>,
    /// The run's result, in PEFT's form.
    pub adapter_dir: PathBuf,
    /// Seconds that all of it took.
    pub wall_seconds: f64,
}

impl Document {
    /// How the run ended.
    pub(super) fn end(&self) -> RunEnd {
        RunEnd {
            planned: self.plan.rounds,
            rounds: self.rounds.last().map_or(0, |round| round.round),
            best: RoundNumber(self.best_round),
        }
    }

    /// The document as JSON; without timings, all that differs between runs of the same plan, data
    /// and seed is left out: seconds, bytes on the network, and the adapter's folder.
    ///
    /// # Errors
    /// A number that JSON does not have.
    pub(super) fn value(&self, no_timings: bool) -> serde_json::Result<Value> {
        let mut value = serde_json::to_value(self)?;
        if no_timings && let Some(document) = value.as_object_mut() {
            document.remove("wall_seconds");
            document.remove("adapter_dir");
            let rounds = document.get_mut("rounds").and_then(Value::as_array_mut);
            for round in rounds.into_iter().flatten() {
                if let Some(round) = round.as_object_mut() {
                    for measured in ["seconds", "bytes_up", "bytes_down"] {
                        round.remove(measured);
                    }
                }
            }
        }
        Ok(value)
    }
}

/// One member.
#[derive(Debug, Clone, Serialize)]
pub struct MemberFigures {
    /// Its name.
    pub name: String,
    /// Examples that it trains on.
    pub training_examples: usize,
    /// Examples that it chooses by.
    pub validation_examples: usize,
    /// Examples that it is evaluated on.
    pub held_out_examples: usize,
    /// Rounds in whose sum it is.
    pub rounds: u32,
    /// The adapter that it keeps, by its validation examples.
    pub chosen: Option<Choice>,
    /// How much lower the perplexity of that adapter is on its own held-out examples than that of
    /// its training alone at its best length, in percent; nothing where it did not train alone.
    pub gain_percent: Option<f64>,
}

/// An institution that took no part in the rounds and joined when they were over.
#[derive(Debug, Clone, Serialize)]
pub struct NewcomerFigures {
    /// Its name.
    pub name: String,
    /// Examples that it trains on.
    pub training_examples: usize,
    /// Examples that it chooses by.
    pub validation_examples: usize,
    /// Examples that it is evaluated on.
    pub held_out_examples: usize,
    /// Perplexity of the federation's adapter on its held-out examples.
    pub federated: f64,
    /// Perplexity of what it keeps.
    pub personalised: f64,
    /// Perplexity of its training alone at its best length; nothing where it did not train alone.
    pub local_only: Option<f64>,
    /// The adapter that it keeps, by its validation examples.
    pub chosen: Choice,
    /// How much lower the perplexity of that adapter is than alone, in percent.
    pub gain_percent: Option<f64>,
}

/// A member that was poisoned on purpose.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoisonFigures {
    /// Its name.
    pub member: String,
    /// What was done: `label-flip`, `label-flip:FACTOR`, `scale:FACTOR` or `noise:FACTOR`.
    pub how: String,
}

/// Held-out perplexities after one round.
#[derive(Debug, Clone, Serialize)]
pub struct CurveFigures {
    /// The round.
    pub round: u32,
    /// Of the adapter that came of it.
    pub held_out: Scores,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct RoundFigures {
    /// Its number.
    pub round: u32,
    /// Tries that it took.
    pub attempts: u32,
    /// Members in the sum.
    pub survivors: Vec<String>,
    /// Members that are not.
    pub dropped: Vec<String>,
    /// Weighted mean training loss, from the masked sum.
    pub train_loss: Option<f32>,
    /// Weighted mean validation loss of the adapter that the round began with, from the masked
    /// sum.
    pub eval_loss: Option<f32>,
    /// Members that found this adapter worse than the one before; from five survivors on.
    pub votes: Option<u16>,
    /// Whether they were enough to take the step before back, in place of a step of this round's.
    pub taken_back: bool,
    /// The sum of the members' example counts, from the masked sum.
    pub total_weight: u64,
    /// Bytes that all members sent.
    pub bytes_up: u64,
    /// Bytes that all members received.
    pub bytes_down: u64,
    /// Whether the unmasked sum is, bit for bit, the sum of the survivors' encoded updates;
    /// nothing where it was not checked.
    pub sum_exact: Option<bool>,
    /// How far the product of the factors' means is from the mean of the members' products,
    /// relative to the latter.
    pub drift: Option<f64>,
    /// Seconds by stage: the longest member's, and `total` for the round.
    pub seconds: BTreeMap<String, f64>,
}

/// Something of each way to train, held-out perplexities by default. Each training has the length
/// that does best on validation records, and at most the steps that a member has in the
/// federation; in one place those of all members.
#[derive(Debug, Clone, Serialize)]
pub struct EvaluationFigures<T = Scores> {
    /// The base model alone.
    pub base: T,
    /// Each member alone.
    pub local_only: Option<T>,
    /// The federation's adapter, that of `best_round`.
    pub federated: T,
    /// What each member ends with.
    pub personalised: Option<T>,
    /// All records in one place.
    pub centralised: Option<T>,
    /// The same, trained further at each member's home.
    pub centralised_then_local: Option<T>,
}

impl<T> EvaluationFigures<T> {
    /// Each way's, in the order of the fields.
    pub(super) fn each(&self) -> [Option<&T>; 6] {
        [
            Some(&self.base),
            self.local_only.as_ref(),
            Some(&self.federated),
            self.personalised.as_ref(),
            self.centralised.as_ref(),
            self.centralised_then_local.as_ref(),
        ]
    }

    /// The same ways with what `of` makes of each.
    pub(super) fn try_map<U, E>(
        &self,
        mut of: impl FnMut(&T) -> Result<U, E>,
    ) -> Result<EvaluationFigures<U>, E> {
        Ok(EvaluationFigures {
            base: of(&self.base)?,
            local_only: self.local_only.as_ref().map(&mut of).transpose()?,
            federated: of(&self.federated)?,
            personalised: self.personalised.as_ref().map(&mut of).transpose()?,
            centralised: self.centralised.as_ref().map(&mut of).transpose()?,
            centralised_then_local: self
                .centralised_then_local
                .as_ref()
                .map(&mut of)
                .transpose()?,
        })
    }
}

/// Held-out scores of one way, perplexities by default.
#[derive(Debug, Clone, Serialize)]
pub struct Scores<T = f64> {
    /// Perplexities: on all held-out data; for members alone the geometric mean over their
    /// adapters. Of a task: over all held-out records, each answered with its own member's
    /// adapter.
    pub pooled: T,
    /// On each member's own held-out data. Members without records of a task are left out.
    pub by_member: BTreeMap<String, T>,
}

/// How well held-out records are classified.
#[derive(Debug, Clone, Serialize)]
pub struct ClassificationFigures {
    /// Labels to choose from: the short responses that several training records have.
    pub labels: usize,
    /// Held-out records that were classified.
    pub records: usize,
    /// Held-out records whose response is none of the labels.
    pub other_records: usize,
    /// Held-out records that are too long for the base with at least one of the labels.
    pub too_long: usize,
    /// Of the label that is likeliest as the response.
    pub scores: EvaluationFigures<Scores<ClassScore>>,
    /// Of TF-IDF and logistic regression on each member's own training records.
    pub tf_idf_alone: Scores<ClassScore>,
    /// Of TF-IDF and logistic regression on all training records in one place.
    pub tf_idf_centralised: Scores<ClassScore>,
}

/// How well some records are classified.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassScore {
    /// Records.
    pub records: usize,
    /// Share of them classified right, 0 to 1.
    pub accuracy: f64,
    /// Mean F1, 0 to 1, over the labels that stand in them or were predicted.
    pub macro_f1: f64,
}

/// How well held-out records are answered in free text.
#[derive(Debug, Clone, Serialize)]
pub struct GenerationFigures {
    /// Held-out records that were answered.
    pub records: usize,
    /// Held-out records whose response is a label.
    pub label_records: usize,
    /// Held-out records whose prompts are too long for the base.
    pub too_long: usize,
    /// Tokens after which a response is cut.
    pub max_tokens: usize,
    /// Mean F-measures of ROUGE-L, 0 to 1.
    pub rouge_l: EvaluationFigures<Scores>,
}
