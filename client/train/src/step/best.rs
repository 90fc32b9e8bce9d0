//! The length at which a training generalises best: scored on validation examples as it goes, and
//! over schedules of several lengths.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use fedlora_adapter::{Adapter, Factors};
use fedlora_model::Example;

use crate::engine::Engine;
use crate::step::beside::Beside;
use crate::step::error::TrainError;
use crate::step::options::{Span, TrainOption, TrainOptions, Warmup};
use crate::step::report::Progress;
use crate::step::trainer::{self, Trainer};

/// How often a training is scored within its length.
const SCORES: usize = 8;
/// The first of these scores in a schedule that is twice as long as one before: what is best
/// earlier, the shorter one does better, since its rate has fallen by then.
const FIRST_OF_LONGER: usize = 3;
/// A longer schedule ends in its second half where it is so many nats a token above the lowest loss
/// of the shorter ones. The falling rate of a second half brought 0.04 at most on the embedded
/// data.
const OUT_OF_REACH: f64 = 0.1;

/// A training's best adapter, by its loss on validation examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The adapter: where it was trained beside a frozen one, both as one.
    pub adapter: Adapter,
    /// Its loss on the validation examples, in nats a token; without such examples none.
    pub loss: Option<f64>,
    /// Optimizer steps that it took; 0 for the adapter that training began with.
    pub step: usize,
    /// Length in steps of the schedule in which it was found.
    pub length: usize,
}

/// What a search for the best adapter trains and scores.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The frozen adapter that the trained one stands beside, if any.
    pub beside: Option<&'a Beside>,
    /// Examples to train on.
    pub training: &'a [Example],
    /// Examples that choose; none of those that the result is judged by.
    pub validation: &'a [Example],
    /// Steps of the longest schedule.
    pub longest: NonZeroUsize,
    /// Steps of the shortest schedule; the others are twice as long each, up to the longest.
    pub shortest: NonZeroUsize,
}

impl Engine {
    /// Trains both factors of `adapter` with schedules of several lengths, scores each training on
    /// the way, and gives of each length the adapter with the lowest loss on the validation
    /// examples, the lowest of all first; `adapter` itself where no training improves it. A schedule
    /// twice as long is tried as long as the one before improved, and given up half-way where it is
    /// far behind. Without validation examples it is one training of the longest length. `options`
    /// gives all but the length.
    ///
    /// # Errors
    /// As [`Engine::train`].
    pub fn best_lengths(
        &self,
        adapter: &Adapter,
        search: Search<'_>,
        options: &TrainOptions,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Best>, TrainError> {
        let longest = search.longest.get();
        let from = (adapter, Factors::Both, search.beside);
        if search.validation.is_empty() {
            let options = with_length(options, longest)?;
            let mut trainer = self.trainer_beside(from, search.training, &options)?;
            let trained = trainer::train(&mut trainer, progress)?;
            return Ok(vec![Best {
                adapter: search.whole(&trainer)?,
                loss: None,
                step: trained.report.steps,
                length: longest,
            }]);
        }
        let whole = match search.beside {
            Some(beside) => beside.whole(adapter, &beside.weights)?,
            None => adapter.clone(),
        };
        let start = self.evaluate(Some(&whole), search.validation)?.loss;
        let mut found: Vec<Best> = Vec::new();
        let mut lowest = start;
        for (place, length) in lengths(search.shortest.get(), longest).enumerate() {
            let options = with_length(options, length)?;
            let mut trainer = self.trainer_beside(from, search.training, &options)?;
            let every = length.div_ceil(SCORES);
            let first = if place == 0 {
                every
            } else {
                FIRST_OF_LONGER * every
            };
            let mut best: Option<Best> = None;
            let (mut of_length, mut stopped) = (start, false);
            while trainer.done() < length && !stopped {
                let done = trainer.step()?;
                stopped = progress(done).is_break();
                let scored = done.step % every == 0 && done.step >= first;
                if stopped || scored || done.step == length {
                    let candidate = search.whole(&trainer)?;
                    let loss = self.evaluate(Some(&candidate), search.validation)?.loss;
                    if loss < of_length {
                        of_length = loss;
                        best = Some(Best {
                            adapter: candidate,
                            loss: Some(loss),
                            step: done.step,
                            length,
                        });
                    }
                    let half_way = place > 0 && 2 * done.step >= length;
                    if half_way && loss > lowest + OUT_OF_REACH {
                        break;
                    }
                }
            }
            let improved = of_length < lowest;
            lowest = lowest.min(of_length);
            found.extend(best);
            if stopped || !improved {
                break;
            }
        }
        if found.is_empty() {
            found.push(Best {
                adapter: whole,
                loss: Some(start),
                step: 0,
                length: 0,
            });
        }
        let loss = |best: &Best| best.loss.unwrap_or(f64::INFINITY);
        found.sort_by(|one, other| loss(one).total_cmp(&loss(other)));
        Ok(found)
    }
}

impl Search<'_> {
    /// The adapter of a training so far, with the frozen one beside it.
    fn whole(&self, trainer: &Trainer<'_>) -> Result<Adapter, TrainError> {
        let trained = trainer.adapter()?;
        match self.beside {
            Some(beside) => beside.whole(&trained, &trainer.weights()),
            None => Ok(trained),
        }
    }
}

/// Lengths from `shortest`, twice as long each, and `longest`.
fn lengths(shortest: usize, longest: usize) -> impl Iterator<Item = usize> {
    let doubled = std::iter::successors(Some(shortest), |length| length.checked_mul(2));
    let shorter = doubled.take_while(move |length| *length < longest);
    shorter.chain(std::iter::once(longest))
}

/// The options with a schedule of `length` steps, at most a tenth of them warm-up.
fn with_length(options: &TrainOptions, length: usize) -> Result<TrainOptions, TrainError> {
    let steps = TrainOption::Steps.count(length)?;
    Ok(TrainOptions {
        batches: options.batches.with_steps(steps),
        warmup: match options.warmup {
            Warmup::Steps(steps) => Warmup::Steps(steps.min(length / 10)),
            share => share,
        },
        span: Some(Span {
            first: 0,
            total: steps,
        }),
        ..options.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{engine, examples};
    use fedlora_adapter::{LoraConfig, Target};

    fn count(value: usize) -> NonZeroUsize {
        NonZeroUsize::new(value).unwrap()
    }

    fn search(validation: &[Example]) -> (Adapter, Vec<Best>) {
        let search = Search {
            beside: None,
            training: &examples()[..9],
            validation,
            longest: count(12),
            shortest: count(4),
        };
        watched(search, &mut |_| ControlFlow::Continue(()))
    }

    /// The first adapter, and what a search from it finds.
    fn watched(
        search: Search<'_>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> (Adapter, Vec<Best>) {
        let engine = engine();
        let lora = LoraConfig::new(4, 8.0, 0.0, Target::ALL).unwrap();
        let first = engine.init_adapter(&lora, 3).unwrap();
        let options = TrainOptions {
            learning_rate: crate::step::options::LearningRate::new(0.05).unwrap(),
            ..TrainOptions::default()
        };
        let found = engine
            .best_lengths(&first, search, &options, watch)
            .unwrap();
        (first, found)
    }

    #[test]
    fn lengths_double_up_to_the_longest() {
        let lengths = |shortest, longest| lengths(shortest, longest).collect::<Vec<_>>();
        assert_eq!(lengths(40, 320), [40, 80, 160, 320]);
        assert_eq!(lengths(40, 300), [40, 80, 160, 300]);
        assert_eq!(lengths(40, 40), [40]);
        assert_eq!(lengths(40, 7), [7]);
    }

    #[test]
    fn the_best_has_the_loss_that_it_says() {
        let validation = &examples()[9..];
        let (first, found) = search(validation);
        let loss = |adapter| engine().evaluate(Some(adapter), validation).unwrap().loss;
        for best in &found {
            assert_eq!(best.loss, Some(loss(&best.adapter)));
            assert!(best.step > 0 && loss(&best.adapter) < loss(&first));
        }
        // One of each length, the best first.
        assert!(found.is_sorted_by(|one, other| one.loss <= other.loss));
        let mut lengths: Vec<_> = found.iter().map(|best| best.length).collect();
        lengths.sort();
        assert!(
            [vec![4, 8], vec![4, 8, 12]].contains(&lengths),
            "{lengths:?}"
        );
    }

    /// One example learnt by heart: few steps help with the others, many harm.
    #[test]
    fn a_longer_schedule_that_is_far_behind_is_given_up() {
        let examples = examples();
        let search = Search {
            beside: None,
            training: &examples[..1],
            validation: &examples[1..],
            longest: count(256),
            shortest: count(4),
        };
        let mut taken = Vec::new();
        let mut watch = |progress: Progress| {
            if progress.step == 1 {
                taken.push(0);
            }
            *taken.last_mut().unwrap() += 1;
            ControlFlow::Continue(())
        };
        let (_, found) = watched(search, &mut watch);
        let whole = lengths(4, 256)
            .zip(&taken)
            .take_while(|(length, taken)| length == *taken);
        let tried = whole.count() + 1;
        assert_eq!(tried, taken.len(), "{taken:?}");
        let (length, last) = (4 << (tried - 1), taken[tried - 1]);
        assert!(
            tried > 1 && (length / 2..length).contains(&last),
            "{taken:?}"
        );
        assert!(found[0].length < length);
    }

    /// Examples whose targets are the reverse of what is trained: each step makes them worse.
    #[test]
    fn a_training_that_only_harms_is_left_out() {
        let reversed: Vec<_> = examples()[..9]
            .iter()
            .map(|example| {
                let tokens = example.tokens().iter().rev().copied().collect();
                Example::new(tokens, vec![true; example.tokens().len()])
            })
            .collect();
        let (first, found) = search(&reversed);
        if found[0].step == 0 {
            assert_eq!((found.len(), &found[0].adapter), (1, &first));
        }
        let loss = |adapter| engine().evaluate(Some(adapter), &reversed).unwrap().loss;
        assert!(loss(&found[0].adapter) <= loss(&first));
    }

    #[test]
    fn without_validation_it_is_the_longest() {
        let (_, found) = search(&[]);
        let [best] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!((best.loss, best.step, best.length), (None, 12, 12));
    }
}
