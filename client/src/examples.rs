//! A member's examples, by what they are for.

use fedlora_model::Example;

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
    /// no more than a fifth. Of fewer than 20 examples all are trained on.
    pub fn new(all: Vec<Example>, held_out: Vec<Example>) -> Self {
        let count = all.len();
        let aside = match count {
            0..FEWEST => 0,
            _ => (count / 10).max(ENOUGH).min(count / 5),
        };
        let (mut training, mut validation) = (Vec::with_capacity(count), Vec::with_capacity(aside));
        for (place, example) in all.into_iter().enumerate() {
            // The places at which the share passes a whole number.
            if place * aside / count != (place + 1) * aside / count {
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
    fn debug_shows_no_token() {
        let text = format!("{:?}", split(40));
        assert!(
            text.contains("validation: 8") && !text.contains("tokens"),
            "{text}"
        );
    }
}
