//! ROUGE-L of greedy responses to held-out records whose response is no label.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use anyhow::bail;
use fedlora_data::TextPipeline;
use fedlora_train::eval::{Question, respond};

use super::labels::LabelledData;
use super::{Answering, Known, MAX_TOKENS};
use crate::simulation::base::OpenBase;
use crate::simulation::report::{EvaluationFigures, GenerationFigures, Scores};
use crate::simulation::scene::Scene;

/// Held-out records of free text, ready to be answered.
#[derive(Debug)]
pub(super) struct GenerateTask<'a> {
    pipeline: &'a TextPipeline,
    /// Each member's name and questions.
    members: Vec<(String, Vec<Question>)>,
    label_records: usize,
    too_long: usize,
}

impl<'a> GenerateTask<'a> {
    /// Takes of each member at most `most` records, evenly spread, whose response is no label and
    /// to whose prompt the base has room for one.
    ///
    /// # Errors
    /// No such record, or one that the base's template refuses.
    pub(super) fn new(
        data: &LabelledData,
        base: &'a OpenBase,
        most: NonZeroUsize,
    ) -> anyhow::Result<Self> {
        let room = base.engine.max_tokens();
        let mut task = Self {
            pipeline: &base.pipeline,
            members: Vec::new(),
            label_records: 0,
            too_long: 0,
        };
        for one in &data.members {
            let mut questions = Vec::new();
            for question in &one.held_out {
                if data.label(question).is_some() {
                    task.label_records += 1;
                } else if base.pipeline.prompt(question.turns())?.len() >= room {
                    task.too_long += 1;
                } else {
                    questions.push(question.clone());
                }
            }
            let chosen = spread(questions.len(), most);
            let chosen = chosen.map(|place| questions[place].clone()).collect();
            task.members.push((one.name.clone(), chosen));
        }
        if task
            .members
            .iter()
            .all(|(_, questions)| questions.is_empty())
        {
            bail!(
                "no held-out record has a response in free text: {} have a label, and {} are too \
                 long",
                task.label_records,
                task.too_long
            );
        }
        Ok(task)
    }

    /// The figures of the adapters of each way.
    pub(super) fn figures(
        &self,
        scene: &Scene<'_>,
        adapters: &EvaluationFigures<Answering<'_>>,
    ) -> anyhow::Result<GenerationFigures> {
        scene.bars.line("generating responses");
        let mut known = Known::new(scene);
        let rouge_l = adapters.try_map(|answering| {
            let means = known.of_each(answering, |member, decoder| {
                let questions = &self.members[member].1;
                if questions.is_empty() {
                    return Ok(None);
                }
                let mut on = |_| ControlFlow::Continue(());
                let made = respond(decoder, self.pipeline, questions, MAX_TOKENS, &mut on)?;
                Ok(Some(made.rouge_l))
            })?;
            anyhow::Ok(self.scores(&means))
        })?;
        Ok(GenerationFigures {
            records: self.members.iter().map(|one| one.1.len()).sum(),
            label_records: self.label_records,
            too_long: self.too_long,
            max_tokens: MAX_TOKENS.get(),
            rouge_l,
        })
    }

    /// The members' means, and the mean of all records.
    fn scores(&self, means: &[Option<f64>]) -> Scores {
        let mut by_member = BTreeMap::new();
        let (mut sum, mut records) = (0.0, 0);
        for ((name, questions), mean) in self.members.iter().zip(means) {
            if let Some(mean) = mean {
                by_member.insert(name.clone(), *mean);
                sum += mean * questions.len() as f64;
                records += questions.len();
            }
        }
        Scores {
            pooled: sum / records as f64,
            by_member,
        }
    }
}

/// At most `most` of the places below `count`, evenly spread.
fn spread(count: usize, most: NonZeroUsize) -> impl Iterator<Item = usize> {
    let chosen = count.min(most.get());
    (0..chosen).map(move |place| place * count / chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_answered_are_evenly_spread() {
        let spread = |count, most| -> Vec<usize> {
            super::spread(count, NonZeroUsize::new(most).unwrap()).collect()
        };
        assert_eq!(spread(10, 4), [0, 2, 5, 7]);
        assert_eq!(spread(3, 20), [0, 1, 2]);
        assert_eq!(spread(0, 20), [] as [usize; 0]);
    }
}
