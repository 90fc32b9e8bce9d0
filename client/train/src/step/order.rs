//! Which examples come next, in a way that can be taken up again.

use crate::step::options::TrainOptions;
use fedlora_data::{Batching, plan_epoch};
use fedlora_model::SplitMix;

/// The stream of a seed that orders examples.
const STREAM: u64 = 1;

/// A place in the order of examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Passes over the data that are complete.
    pub epoch: u64,
    /// What was taken of the pass at hand: batches of a planned pass, examples otherwise.
    pub taken: usize,
}

/// Batch after batch, each a list of indices into the lengths.
#[derive(Debug)]
pub(crate) struct Order {
    lengths: Vec<usize>,
    passes: Passes,
    position: Position,
}

#[derive(Debug)]
enum Passes {
    /// Passes follow one another without a break, so that every batch is full.
    Continuous {
        batch_size: usize,
        /// The pass at hand, last example first.
        waiting: Vec<usize>,
        shuffle: Option<SplitMix>,
        /// The generator before the first pass.
        first: Option<SplitMix>,
    },
    /// Each pass is cut into batches by itself.
    Planned {
        how: Batching,
        seed: u64,
        /// Passes after which nothing comes any more.
        last: Option<u64>,
        /// The pass at hand.
        batches: Vec<Vec<usize>>,
    },
}

impl Order {
    /// The order of examples of these lengths in tokens; there is at least one.
    pub(crate) fn new(lengths: Vec<usize>, options: &TrainOptions) -> Self {
        let passes = match options.batching {
            None => {
                // Another order in each round of a schedule that spans rounds.
                let stream = STREAM + ((options.first_step as u64) << 8);
                let first = options.shuffle.then(|| SplitMix::new(options.seed, stream));
                Passes::Continuous {
                    batch_size: options.batch_size,
                    waiting: Vec::new(),
                    shuffle: first.clone(),
                    first,
                }
            }
            Some(how) => Passes::Planned {
                how,
                seed: options.seed,
                last: options.epochs.map(|epochs| epochs as u64),
                batches: plan_epoch(&lengths, how, options.seed, 0),
            },
        };
        Self {
            lengths,
            passes,
            position: Position::default(),
        }
    }

    /// Batches of the whole training where passes are counted, `None` where they go on.
    pub(crate) fn batches(&self) -> Option<usize> {
        match &self.passes {
            Passes::Continuous { .. } => None,
            &Passes::Planned {
                how, seed, last, ..
            } => last.map(|last| {
                (0..last)
                    .map(|epoch| plan_epoch(&self.lengths, how, seed, epoch).len())
                    .sum()
            }),
        }
    }

    /// The next batch; `None` after the last pass.
    pub(crate) fn take(&mut self) -> Option<Vec<usize>> {
        let count = self.lengths.len();
        match &mut self.passes {
            Passes::Continuous {
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
            Passes::Planned {
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

    /// Where the order stands.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Passes done, the part of the one at hand included.
    pub(crate) fn epochs(&self) -> f64 {
        let whole = match &self.passes {
            Passes::Continuous { .. } => self.lengths.len(),
            Passes::Planned { batches, .. } => batches.len(),
        };
        self.position.epoch as f64 + self.position.taken as f64 / whole.max(1) as f64
    }

    /// Goes to a place; whether there is such a place.
    pub(crate) fn seek(&mut self, to: Position) -> bool {
        let count = self.lengths.len();
        match &mut self.passes {
            Passes::Continuous {
                waiting,
                shuffle,
                first,
                ..
            } => {
                if to.taken >= count {
                    return false;
                }
                // The generator runs on from pass to pass: the passes are drawn again.
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
            Passes::Planned {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn options(batching: Option<Batching>, shuffle: bool, epochs: Option<usize>) -> TrainOptions {
        TrainOptions {
            batch_size: 3,
            seed: 4,
            batching,
            shuffle,
            epochs,
            ..TrainOptions::default()
        }
    }

    fn all() -> Vec<TrainOptions> {
        vec![
            options(None, true, None),
            options(None, false, None),
            options(Some(Batching::InOrder { examples: 3 }), false, None),
            options(Some(Batching::Shuffled { examples: 3 }), true, Some(9)),
            options(Some(Batching::Bucketed { examples: 3 }), true, None),
            options(Some(Batching::Packed { tokens: 20 }), true, Some(9)),
        ]
    }

    fn lengths() -> Vec<usize> {
        (0..11).map(|index| 4 + index * 3 % 7).collect()
    }

    #[test]
    fn a_place_can_be_taken_up_again_anywhere() {
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
    fn a_place_beyond_the_pass_is_refused() {
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
    fn counted_passes_end_and_take_each_example_as_often() {
        for how in [
            Batching::Shuffled { examples: 4 },
            Batching::Packed { tokens: 20 },
        ] {
            let mut order = Order::new(lengths(), &options(Some(how), true, Some(2)));
            let batches = order.batches().unwrap();
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
    fn continuous_passes_fill_every_batch() {
        let mut order = Order::new(lengths(), &options(None, true, None));
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
