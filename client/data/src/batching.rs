//! Which examples are computed together: an epoch as a list of batches, from lengths alone.
//!
//! Pure functions: the same lengths, seed and epoch give the same batches on every machine. The
//! generator of the model's initial values is all that is used of other modules.

use fedlora_model::SplitMix;

/// The stream of a seed that orders examples here.
const STREAM: u64 = 3;
/// Batches' worth of examples within which like lengths are looked for. More fill batches
/// better and mix lengths less.
const WINDOW: usize = 32;

/// How examples are put into batches. Sizes of 0 are taken as 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// So many examples a batch, in the order given.
    InOrder {
        /// Examples a batch.
        examples: usize,
    },
    /// So many examples a batch, in an order drawn anew for each epoch.
    Shuffled {
        /// Examples a batch.
        examples: usize,
    },
    /// So many examples a batch, those of a batch of similar length.
    Bucketed {
        /// Examples a batch.
        examples: usize,
    },
    /// As many examples a batch as fit into a number of tokens; one that is longer is alone.
    Packed {
        /// Tokens a batch.
        tokens: usize,
    },
}

/// The batches of an epoch, each a list of indices into `lengths` (tokens of each example).
/// Every example stands in exactly one batch, and no batch is empty.
pub fn plan_epoch(lengths: &[usize], how: Batching, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let mut random = SplitMix::new(seed, STREAM.wrapping_add(epoch << 8));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    if !matches!(how, Batching::InOrder { .. }) {
        random.shuffle(&mut order);
    }
    let mut batches = match how {
        Batching::InOrder { examples } | Batching::Shuffled { examples } => {
            return cut(&order, examples);
        }
        Batching::Bucketed { examples } => {
            let window = examples.max(1).saturating_mul(WINDOW);
            for part in order.chunks_mut(window) {
                part.sort_by_key(|&index| lengths[index]);
            }
            cut(&order, examples)
        }
        Batching::Packed { tokens } => pack(&order, lengths, tokens.max(1)),
    };
    // Otherwise a window's longest would always come first.
    random.shuffle(&mut batches);
    batches
}

fn cut(order: &[usize], examples: usize) -> Vec<Vec<usize>> {
    order
        .chunks(examples.max(1))
        .map(<[usize]>::to_vec)
        .collect()
}

/// A batch that is being filled.
struct Bin {
    filled: usize,
    members: Vec<usize>,
}

/// First-fit-decreasing within windows of the order. What fills a window's emptiest batch goes
/// into the next window, so that one batch an epoch is left partly empty, not one a window.
fn pack(order: &[usize], lengths: &[usize], tokens: usize) -> Vec<Vec<usize>> {
    let length = |index: usize| lengths[index].clamp(1, tokens);
    let mut batches = Vec::new();
    let mut window: Vec<usize> = Vec::new();
    let mut held = 0;
    let mut waiting = order.iter().copied().peekable();
    while let Some(index) = waiting.next() {
        window.push(index);
        held += length(index);
        let last = waiting.peek().is_none();
        if !last && held < tokens.saturating_mul(WINDOW) {
            continue;
        }
        let mut bins = first_fit_decreasing(&mut window, &length, tokens);
        window.clear();
        held = 0;
        let emptiest = (0..bins.len()).min_by_key(|&bin| bins[bin].filled);
        if let (false, Some(emptiest)) = (last, emptiest) {
            let bin = bins.swap_remove(emptiest);
            held = bin.filled;
            window = bin.members;
        }
        batches.extend(bins.into_iter().map(|bin| bin.members));
    }
    batches
}

fn first_fit_decreasing(
    window: &mut [usize],
    length: &impl Fn(usize) -> usize,
    tokens: usize,
) -> Vec<Bin> {
    window.sort_by_key(|&index| std::cmp::Reverse(length(index)));
    let mut bins: Vec<Bin> = Vec::new();
    for &index in window.iter() {
        let size = length(index);
        match bins.iter_mut().find(|bin| bin.filled + size <= tokens) {
            Some(bin) => {
                bin.filled += size;
                bin.members.push(index);
            }
            None => bins.push(Bin {
                filled: size,
                members: vec![index],
            }),
        }
    }
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batching() -> impl Strategy<Value = Batching> {
        prop_oneof![
            (0usize..9).prop_map(|examples| Batching::InOrder { examples }),
            (0usize..9).prop_map(|examples| Batching::Shuffled { examples }),
            (0usize..9).prop_map(|examples| Batching::Bucketed { examples }),
            (0usize..600).prop_map(|tokens| Batching::Packed { tokens }),
        ]
    }

    fn tokens(batch: &[usize], lengths: &[usize]) -> usize {
        batch.iter().map(|&index| lengths[index]).sum()
    }

    proptest! {
        #[test]
        fn every_example_stands_in_one_batch_within_its_limit(
            lengths in proptest::collection::vec(0usize..300, 0..400),
            how in batching(),
            seed: u64,
            epoch: u64,
        ) {
            let batches = plan_epoch(&lengths, how, seed, epoch);
            prop_assert_eq!(&batches, &plan_epoch(&lengths, how, seed, epoch));
            let mut all = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                prop_assert!(!batch.is_empty());
                match how {
                    Batching::InOrder { examples }
                    | Batching::Shuffled { examples }
                    | Batching::Bucketed { examples } => {
                        prop_assert!(batch.len() <= examples.max(1));
                    }
                    Batching::Packed { tokens: most } => prop_assert!(
                        batch.len() == 1 || tokens(batch, &lengths) <= most.max(1)
                    ),
                }
            }
            if let Batching::InOrder { .. } = how {
                prop_assert!(batches.concat().is_sorted());
            }
        }

        #[test]
        fn packing_leaves_little_room(seed: u64) {
            let mut random = SplitMix::new(seed, 9);
            let lengths: Vec<_> = (0..2000).map(|_| 16 + random.below(240)).collect();
            let batches = plan_epoch(&lengths, Batching::Packed { tokens: 1024 }, seed, 0);
            let least = lengths.iter().sum::<usize>().div_ceil(1024);
            prop_assert!(batches.len() * 100 <= least * 102, "{} for {least}", batches.len());
        }

        #[test]
        fn bucketing_puts_like_lengths_together(seed: u64) {
            let mut random = SplitMix::new(seed, 9);
            let lengths: Vec<_> = (0..2000).map(|_| 1 + random.below(1000)).collect();
            let padded = |how| {
                let batches = plan_epoch(&lengths, how, seed, 0);
                let longest = |batch: &Vec<usize>| batch.iter().map(|&i| lengths[i]).max().unwrap();
                batches.iter().map(|batch| batch.len() * longest(batch)).sum::<usize>()
            };
            let sum = lengths.iter().sum::<usize>();
            let bucketed = padded(Batching::Bucketed { examples: 8 });
            prop_assert!(bucketed * 100 <= sum * 105, "{bucketed} for {sum}");
            let shuffled = padded(Batching::Shuffled { examples: 8 });
            prop_assert!(shuffled * 100 > sum * 140);
        }
    }

    #[test]
    fn epochs_and_seeds_order_differently() {
        let lengths = vec![7; 100];
        for how in [
            Batching::Shuffled { examples: 4 },
            Batching::Bucketed { examples: 4 },
            Batching::Packed { tokens: 28 },
        ] {
            let first = plan_epoch(&lengths, how, 1, 0);
            assert_ne!(first, plan_epoch(&lengths, how, 1, 1), "{how:?}");
            assert_ne!(first, plan_epoch(&lengths, how, 2, 0), "{how:?}");
        }
    }
}
