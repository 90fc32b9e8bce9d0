//! Examples that repeat each other: the same answer to several questions, or a passage of it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use fedlora_model::Example;

/// Target tokens in a row that two examples must have in common to repeat each other: a sentence,
/// and no mere name.
const RUN: usize = 32;
/// A run in more examples than this part of all, and than [`COMMON`], is a form and no repetition.
const COMMON_PART: usize = 20;
/// See [`COMMON_PART`].
const COMMON: usize = 8;

/// For each example the place of the first one of its group. Those of a group repeat each other,
/// directly or through others of it.
pub(crate) fn groups(examples: &[Example]) -> Vec<usize> {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (place, example) in examples.iter().enumerate() {
        let targets: Vec<u32> = example
            .tokens()
            .iter()
            .zip(example.loss_mask())
            .filter_map(|(token, target)| target.then_some(*token))
            .collect();
        for run in targets.windows(RUN) {
            let mut hasher = DefaultHasher::new();
            run.hash(&mut hasher);
            let found = places.entry(hasher.finish()).or_default();
            if found.last() != Some(&place) {
                found.push(place);
            }
        }
    }
    let most = (examples.len() / COMMON_PART).max(COMMON);
    let mut groups: Vec<usize> = (0..examples.len()).collect();
    for found in places.into_values().filter(|found| found.len() <= most) {
        for pair in found.windows(2) {
            join(&mut groups, pair[0], pair[1]);
        }
    }
    (0..groups.len())
        .map(|place| first(&groups, place))
        .collect()
}

/// The first example of the group of `place`.
fn first(groups: &[usize], mut place: usize) -> usize {
    while groups[place] != place {
        place = groups[place];
    }
    place
}

fn join(groups: &mut [usize], one: usize, other: usize) {
    let (one, other) = (first(groups, one), first(groups, other));
    groups[one.max(other)] = one.min(other);
    // A path that was walked once is short from then on.
    groups[one] = first(groups, one);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(tokens: impl IntoIterator<Item = u32>) -> Example {
        let tokens: Vec<u32> = tokens.into_iter().collect();
        let mask = vec![true; tokens.len()];
        Example::new(tokens, mask)
    }

    #[test]
    fn passages_in_common_make_a_group_also_through_a_third() {
        let examples = [
            example(0..50),
            example(100..150),
            // The end of the first, and the beginning of the fifth.
            example((10..50).chain(200..240)),
            // 31 tokens in common are too few; the first token is no target.
            example(118..150),
            example(199..250),
        ];
        assert_eq!(groups(&examples), [0, 1, 0, 3, 0]);
    }

    /// What all begin with, such as "The patient is", says nothing.
    #[test]
    fn a_form_is_no_repetition() {
        let examples: Vec<_> = (0..40)
            .map(|one| example((0..40).chain(1000 * (one + 1)..1000 * (one + 1) + 40)))
            .collect();
        assert_eq!(groups(&examples), (0..40).collect::<Vec<_>>());
        assert_eq!(groups(&examples[..8]), [0; 8]);
    }

    #[test]
    fn no_examples_have_no_groups() {
        assert!(groups(&[]).is_empty());
    }
}
