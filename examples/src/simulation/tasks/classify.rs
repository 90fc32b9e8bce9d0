//! Macro-F1 and accuracy of the likeliest label, and of the linear baseline on the same records.

use std::ops::Range;

use anyhow::{Context, bail};
use fedlora_train::eval::metrics::{accuracy, macro_f1};
use fedlora_train::eval::{LabelSet, LabelTree, Question};

use super::labels::LabelledData;
use super::{Answering, Known};
use crate::linear::TextClassifier;
use crate::simulation::base::OpenBase;
use crate::simulation::report::{ClassScore, ClassificationFigures, EvaluationFigures, Scores};
use crate::simulation::scene::Scene;

/// A label's number, and that of the predicted one.
type Pair = (usize, usize);

/// Held-out records with labels, ready to be classified.
#[derive(Debug)]
pub(super) struct ClassifyTask {
    labels: usize,
    members: Vec<MemberTask>,
    other_records: usize,
    too_long: usize,
}

/// One member's records with labels.
#[derive(Debug)]
struct MemberTask {
    name: String,
    /// Texts that it trains on, with their labels.
    training: Vec<(String, usize)>,
    held_out: Vec<HeldOut>,
}

/// A held-out record.
#[derive(Debug)]
struct HeldOut {
    label: usize,
    text: String,
    tree: LabelTree,
}

impl ClassifyTask {
    /// Takes the records whose response is a label, as far as the base has room for them with
    /// every label.
    ///
    /// # Errors
    /// Fewer than two labels, no held-out record with one, or a record that the base's template
    /// refuses.
    pub(super) fn new(data: &LabelledData, base: &OpenBase) -> anyhow::Result<Self> {
        let labels = LabelSet::given(&data.labels, &[])
            .context("to classify, short responses must each occur in several training records")?;
        let room = base.engine.max_tokens();
        let mut task = Self {
            labels: data.labels.len(),
            members: Vec::new(),
            other_records: 0,
            too_long: 0,
        };
        for one in &data.members {
            let labelled = |question: &Question| Some((text(question), data.label(question)?));
            let mut held_out = Vec::new();
            for question in &one.held_out {
                let Some(label) = data.label(question) else {
                    task.other_records += 1;
                    continue;
                };
                match LabelTree::new(&base.pipeline, question, &labels, room)? {
                    Some(tree) => held_out.push(HeldOut {
                        label,
                        text: text(question),
                        tree,
                    }),
                    None => task.too_long += 1,
                }
            }
            task.members.push(MemberTask {
                name: one.name.clone(),
                training: one.training.iter().filter_map(labelled).collect(),
                held_out,
            });
        }
        if task.members.iter().all(|one| one.held_out.is_empty()) {
            bail!(
                "no held-out record can be classified: the response of {} is none of {} labels, \
                 and {} are too long",
                task.other_records,
                task.labels,
                task.too_long
            );
        }
        Ok(task)
    }

    /// The figures of the adapters of each way, and of the baseline.
    pub(super) fn figures(
        &self,
        scene: &Scene<'_>,
        adapters: &EvaluationFigures<Answering<'_>>,
    ) -> anyhow::Result<ClassificationFigures> {
        scene.bars.line("classifying");
        let mut known = Known::new(scene);
        let scores = adapters.try_map(|answering| {
            let pairs = known.of_each(answering, |member, decoder| {
                let pair = |one: &HeldOut| Ok((one.label, one.tree.likeliest(decoder)?));
                self.members[member].held_out.iter().map(pair).collect()
            })?;
            anyhow::Ok(self.scores(&pairs))
        })?;
        Ok(ClassificationFigures {
            labels: self.labels,
            records: self.members.iter().map(|one| one.held_out.len()).sum(),
            other_records: self.other_records,
            too_long: self.too_long,
            scores,
            tf_idf_alone: self.baseline((0..self.members.len()).map(|member| member..member + 1)),
            tf_idf_centralised: self.baseline(std::iter::once(0..self.members.len())),
        })
    }

    /// The scores of classifiers that are each trained at some members and used by them. Members
    /// without a training record that has a label have no score.
    fn baseline(&self, groups: impl Iterator<Item = Range<usize>>) -> Scores<ClassScore> {
        let mut pairs = vec![Vec::new(); self.members.len()];
        for group in groups {
            let training: Vec<(&str, usize)> = self.members[group.clone()]
                .iter()
                .flat_map(|one| &one.training)
                .map(|(text, label)| (text.as_str(), *label))
                .collect();
            let Some(classifier) = TextClassifier::fit(&training) else {
                continue;
            };
            for member in group {
                let held_out = self.members[member].held_out.iter();
                pairs[member] = held_out
                    .map(|one| (one.label, classifier.predict(&one.text)))
                    .collect();
            }
        }
        self.scores(&pairs)
    }

    /// The scores of each member's pairs, and of all.
    fn scores(&self, pairs: &[Vec<Pair>]) -> Scores<ClassScore> {
        let each = self.members.iter().zip(pairs);
        Scores {
            pooled: ClassScore::of(&pairs.concat()),
            by_member: each
                .filter(|(_, pairs)| !pairs.is_empty())
                .map(|(one, pairs)| (one.name.clone(), ClassScore::of(pairs)))
                .collect(),
        }
    }
}

impl ClassScore {
    fn of(pairs: &[Pair]) -> Self {
        Self {
            records: pairs.len(),
            accuracy: accuracy(pairs),
            macro_f1: macro_f1(pairs),
        }
    }
}

/// What the baseline reads of a question: all that is said before the response.
fn text(question: &Question) -> String {
    let turns = question.turns().iter();
    let contents: Vec<_> = turns.map(|turn| turn.content.as_str()).collect();
    contents.join("\n")
}
