//! Which examples come next, as an order that can resume at any position.

use std::num::NonZeroUsize;

use fedlora_data::{Batching, plan_epoch};
use fedlora_model::SplitMix;

use crate::step::options::{Batches, Length, TrainOptions};

/// The stream of a seed that orders examples.
const STREAM: u64 = 1;

/// A position in the order of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Epochs that are complete.
    pub epoch: u64,
    /// What is taken of the current epoch: batches of a planned epoch, examples otherwise.
    pub taken: usize,
}

/// Batch after batch, each a list of indices into the lengths.
#[derive(Debug)]
pub(crate) struct Order {
    lengths: Vec<usize>,
    epochs: EpochOrder,
    position: Position,
}

#[derive(Debug)]
enum EpochOrder {
    /// Epochs follow one another without a break, so that every batch is full.
    Continuous {
        batch_size: usize,
        /// What is left of the current epoch, last example first.
        waiting: Vec<usize>,
        shuffle: Option<SplitMix>,
        /// The generator before the first epoch.
        first: Option<SplitMix>,
    },
    /// Each epoch is cut into batches by itself.
    Planned {
        how: Batching,
        seed: u64,
        /// Epochs after which there are no more batches; `None` for a training by steps.
        last: Option<u64>,
        /// All batches of the current epoch.
        batches: Vec<Vec<usize>>,
    },
}

impl Order {
    /// The order of examples of these lengths in tokens; there is at least one.
    pub(crate) fn new(lengths: Vec<usize>, options: &TrainOptions) -> Self {
        let epochs = match options.batches {
            Batches::Continuous {
                batch_size,
                shuffle,
                ..
            } => {
                // Trainings of one schedule have orders of their own.
                let stream = STREAM + ((options.first_step() as u64) << 8);
                let first = shuffle.then(|| SplitMix::new(options.seed, stream));
                EpochOrder::Continuous {
                    batch_size: batch_size.get(),
                    waiting: Vec::new(),
                    shuffle: first.clone(),
                    first,
                }
            }
            Batches::Planned { batching, length } => EpochOrder::Planned {
                how: batching,
                seed: options.seed,
                last: match length {
                    Length::Epochs(epochs) => Some(epochs.get() as u64),
                    Length::Steps(_) => None,
                },
                batches: plan_epoch(&lengths, batching, options.seed, 0),
            },
        };
        Self {
            lengths,
            epochs,
            position: Position::default(),
        }
    }

    /// The next batch; `None` after the last epoch.
    pub(crate) fn take(&mut self) -> Option<Vec<usize>> {
        let count = self.lengths.len();
        match &mut self.epochs {
            EpochOrder::Continuous {
                batch_size,
                waiting,
                shuffle,
                ..
            } => {
                let chosen = (0..(*batch_size).min(count))
                    .map(|_| {
                        if waiting.is_empty() {
                            *waiting = (0..count).rev().collect();
                            if let Some(random) = shuffle {
                                random.shuffle(waiting);
                            }
                        }
                        self.position.taken += 1;
                        if self.position.taken == count {
                            self.position.epoch += 1;
                            self.position.taken = 0;
                        }
                        waiting.pop().unwrap_or(0)
                    })
                    .collect();
                Some(chosen)
            }
            EpochOrder::Planned {
                how,
                seed,
                last,
                batches,
            } => {
                if last.is_some_and(|last| self.position.epoch >= last) {
                    return None;
                }
                let batch = batches.get(self.position.taken)?.clone();
                self.position.taken += 1;
                if self.position.taken == batches.len() {
                    self.position.epoch += 1;
                    self.position.taken = 0;
                    *batches = plan_epoch(&self.lengths, *how, *seed, self.position.epoch);
                }
                Some(batch)
            }
        }
    }

    /// The position of the next batch.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Epochs done, with the done part of the current one as fraction.
    pub(crate) fn epochs(&self) -> f64 {
        let whole = match &self.epochs {
            EpochOrder::Continuous { .. } => self.lengths.len(),
            EpochOrder::Planned { batches, .. } => batches.len(),
        };
        self.position.epoch as f64 + self.position.taken as f64 / whole.max(1) as f64
    }

    /// Moves to a position. Returns whether it exists; if not, nothing changes.
    pub(crate) fn seek(&mut self, to: Position) -> bool {
        let count = self.lengths.len();
        match &mut self.epochs {
            EpochOrder::Continuous {
                waiting,
                shuffle,
                first,
                ..
            } => {
                if to.taken >= count {
                    return false;
                }
                // The generator runs on from epoch to epoch: draw all of them again.
                shuffle.clone_from(first);
                waiting.clear();
                let drawn = to.epoch + u64::from(to.taken > 0);
                for _ in 0..drawn {
                    *waiting = (0..count).rev().collect();
                    match shuffle {
                        Some(random) => random.shuffle(waiting),
                        None => break,
                    }
                }
                waiting.truncate(if to.taken > 0 { count - to.taken } else { 0 });
            }
            EpochOrder::Planned {
                how,
                seed,
                last,
                batches,
            } => {
                let planned = plan_epoch(&self.lengths, *how, *seed, to.epoch);
                let inside =
                    last.is_none_or(|last| to.epoch < last || (to.epoch == last && to.taken == 0));
                if to.taken >= planned.len() || !inside {
                    return false;
                }
                *batches = planned;
            }
        }
        self.position = to;
        true
    }
}

/// Batches of `epochs` epochs of examples of these lengths in tokens.
pub(crate) fn planned_batches(
    lengths: &[usize],
    batching: Batching,
    seed: u64,
    epochs: NonZeroUsize,
) -> usize {
    (0..epochs.get() as u64)
        .map(|epoch| plan_epoch(lengths, batching, seed, epoch).len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(value: usize) -> NonZeroUsize {
        NonZeroUsize::new(value).unwrap()
    }

    fn continuous(shuffle: bool) -> TrainOptions {
        options(Batches::Continuous {
            batch_size: count(3),
            shuffle,
            steps: count(100),
        })
    }

    fn planned(batching: Batching, epochs: Option<usize>) -> TrainOptions {
        options(Batches::Planned {
            batching,
            length: match epochs {
                Some(epochs) => Length::Epochs(count(epochs)),
                None => Length::Steps(count(100)),
            },
        })
    }

    fn options(batches: Batches) -> TrainOptions {
        TrainOptions {
            batches,
            seed: 4,
            ..TrainOptions::default()
        }
    }

    fn all() -> Vec<TrainOptions> {
        vec![
            continuous(true),
            continuous(false),
            planned(Batching::InOrder { examples: 3 }, None),
            planned(Batching::Shuffled { examples: 3 }, Some(9)),
            planned(Batching::Bucketed { examples: 3 }, None),
            planned(Batching::Packed { tokens: 20 }, Some(9)),
        ]
    }

    fn lengths() -> Vec<usize> {
        (0..11).map(|index| 4 + index * 3 % 7).collect()
    }

    #[test]
    fn the_order_resumes_at_any_position() {
        for options in all() {
            let mut order = Order::new(lengths(), &options);
            let mut seen = Vec::new();
            for _ in 0..20 {
                seen.push((order.position(), order.take().unwrap()));
            }
            for (at, (position, _)) in seen.iter().enumerate() {
                let mut again = Order::new(lengths(), &options);
                again.take();
                assert!(again.seek(*position), "{options:?} {position:?}");
                for (place, batch) in &seen[at..] {
                    assert_eq!(again.position(), *place);
                    assert_eq!(again.take().as_ref(), Some(batch), "{options:?}");
                }
            }
        }
    }

    #[test]
    fn a_position_beyond_the_epoch_is_refused() {
        for options in all() {
            let mut order = Order::new(lengths(), &options);
            let beyond = Position {
                epoch: 0,
                taken: 11,
            };
            assert!(!order.seek(beyond), "{options:?}");
            assert_eq!(order.position(), Position::default());
        }
        let mut order = Order::new(lengths(), &all()[3]);
        let after = Position { epoch: 9, taken: 1 };
        assert!(!order.seek(after));
    }

    #[test]
    fn a_number_of_epochs_ends_and_takes_each_example_as_often() {
        for how in [
            Batching::Shuffled { examples: 4 },
            Batching::Packed { tokens: 20 },
        ] {
            let mut order = Order::new(lengths(), &planned(how, Some(2)));
            let batches = planned_batches(&lengths(), how, 4, count(2));
            let mut times = [0; 11];
            for _ in 0..batches {
                for index in order.take().unwrap() {
                    times[index] += 1;
                }
            }
            assert_eq!(times, [2; 11]);
            assert_eq!(order.take(), None);
            assert_eq!(order.epochs(), 2.0);
        }
    }

    #[test]
    fn continuous_epochs_fill_every_batch() {
        let mut order = Order::new(lengths(), &continuous(true));
        let mut times = [0; 11];
        for _ in 0..11 {
            let batch = order.take().unwrap();
            assert_eq!(batch.len(), 3);
            for index in batch {
                times[index] += 1;
            }
        }
        assert_eq!(times, [3; 11]);
        assert_eq!(order.position().epoch, 3);
    }
}
