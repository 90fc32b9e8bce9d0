//! A member's examples, by what they are for.

use std::num::NonZeroUsize;

use fedlora_model::Example;

use crate::repeats;

/// The fewest training examples of which some are set aside for validation.
const FEWEST: usize = 20;
/// The fewest validation examples where there are five times as many in all.
const ENOUGH: usize = 8;

/// A member's examples, by what they are for. `Debug` shows their numbers only.
#[derive(Clone, Default)]
pub struct MemberExamples {
    /// Those that adapters are trained on.
    pub training: Vec<Example>,
    /// Those that choose: among rounds, lengths of a training, adapters. They come from the
    /// training records, never from the held-out ones.
    pub validation: Vec<Example>,
    /// Those that an adapter is judged by in the end. Nothing is chosen by them.
    pub held_out: Vec<Example>,
}

impl MemberExamples {
    /// Sets a tenth of the training examples aside for validation, evenly spread: 8 at least, but
    /// no more than a fifth. Of fewer than 20 examples all are trained on. Examples that repeat each
    /// other stay on one side: by those that it has seen, an adapter would look better than it is,
    /// the more so the longer it learns by heart. So there may be fewer, or none.
    pub fn new(all: Vec<Example>, held_out: Vec<Example>) -> Self {
        let count = all.len();
        let aside = match count {
            0..FEWEST => 0,
            _ => (count / 10).max(ENOUGH).min(count / 5),
        };
        let groups = repeats::groups(&all);
        let sizes = groups.iter().fold(vec![0; count], |mut sizes, group| {
            sizes[*group] += 1;
            sizes
        });
        let mut chosen = vec![false; count];
        let (mut seen, mut taken) = (0, 0);
        for (place, size) in sizes.into_iter().enumerate() {
            // A whole group at a time, where the share that is due by then has room for it.
            seen += size;
            let due = seen * aside / count;
            if size > 0 && due >= taken + size {
                taken += size;
                chosen[place] = true;
            }
        }
        let (mut training, mut validation) = (Vec::with_capacity(count), Vec::with_capacity(taken));
        for (example, group) in all.into_iter().zip(groups) {
            if chosen[group] {
                validation.push(example);
            } else {
                training.push(example);
            }
        }
        Self {
            training,
            validation,
            held_out,
        }
    }

    /// The same with at most `most` examples that are not held out, evenly spread over all.
    pub fn limited(self, most: NonZeroUsize) -> Self {
        let mut all = self.training;
        all.extend(self.validation);
        let (count, most) = (all.len(), most.get());
        let kept = all.into_iter().enumerate().filter(|(place, _)| {
            // Counts up where the share that is due has grown by one.
            (place + 1) * most / count.max(most) > place * most / count.max(most)
        });
        Self::new(kept.map(|(_, example)| example).collect(), self.held_out)
    }

    /// The number of records that are not held out.
    pub fn own(&self) -> usize {
        self.training.len() + self.validation.len()
    }
}

impl std::fmt::Debug for MemberExamples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberExamples")
            .field("training", &self.training.len())
            .field("validation", &self.validation.len())
            .field("held_out", &self.held_out.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(count: u32) -> MemberExamples {
        let all = (0..count).map(|token| Example::new(vec![token, 1], vec![false, true]));
        MemberExamples::new(all.collect(), Vec::new())
    }

    #[test]
    fn a_tenth_but_at_least_eight_and_at_most_a_fifth() {
        for (count, aside) in [
            (0, 0),
            (19, 0),
            (20, 4),
            (39, 7),
            (50, 8),
            (100, 10),
            (654, 65),
        ] {
            let examples = split(count);
            assert_eq!(examples.validation.len(), aside, "{count}");
            assert_eq!(examples.own(), count as usize);
        }
    }

    #[test]
    fn no_example_serves_both_and_they_are_spread() {
        let examples = split(100);
        let firsts = |examples: &[Example]| -> Vec<u32> {
            examples.iter().map(|one| one.tokens()[0]).collect()
        };
        let validation = firsts(&examples.validation);
        assert_eq!(validation, [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]);
        let training = firsts(&examples.training);
        assert!(validation.iter().all(|one| !training.contains(one)));
    }

    #[test]
    fn fewer_examples_are_spread_over_all() {
        let limited = |count, most| split(count).limited(NonZeroUsize::new(most).unwrap());
        for (count, most, left) in [(100, 50, 50), (100, 1, 1), (60, 60, 60), (7, 50, 7)] {
            assert_eq!(limited(count, most).own(), left, "{most} of {count}");
        }
        assert_eq!(limited(100, 50).validation.len(), 8);
        let mut firsts: Vec<_> = limited(100, 4)
            .training
            .iter()
            .map(|one| one.tokens()[0])
            .collect();
        firsts.sort();
        assert_eq!(firsts.len(), 4);
        assert!(firsts[0] < 30 && firsts[3] > 60, "{firsts:?}");
    }

    /// Pairs of examples with one answer, in other places.
    #[test]
    fn examples_that_repeat_each_other_stay_on_one_side() {
        let answer = |answer: u32| (0..40).map(move |token| 100 + 50 * answer + token);
        let all: Vec<_> = (0..200_u32)
            .map(|place| {
                let tokens: Vec<u32> = [place].into_iter().chain(answer(place % 100)).collect();
                Example::new(tokens, vec![true; 41])
            })
            .collect();
        let examples = MemberExamples::new(all, Vec::new());
        let answers = |examples: &[Example]| -> std::collections::BTreeSet<u32> {
            examples.iter().map(|one| one.tokens()[1]).collect()
        };
        let (training, validation) = (&examples.training, &examples.validation);
        assert!(
            (16..=20).contains(&validation.len()),
            "{}",
            validation.len()
        );
        assert!(answers(training).is_disjoint(&answers(validation)));
    }

    #[test]
    fn debug_shows_no_token() {
        let text = format!("{:?}", split(40));
        assert!(
            text.contains("validation: 8") && !text.contains("tokens"),
            "{text}"
        );
    }
}
