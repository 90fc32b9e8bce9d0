//! The identity of a run: all that its result depends on. A run resumes only with the spec that
//! it began with.

use std::collections::BTreeMap;
use std::fmt;

use fedlora_common::digest::{Digest, DigestWriter};
use fedlora_model::Example;
use serde::{Deserialize, Serialize};

/// Digests of a run's inputs, and its options, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunSpec(BTreeMap<String, String>);

/// An entry in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The entry's name.
    pub name: String,
    /// Its value when the run began, if it had one.
    pub before: Option<String>,
    /// Its value in this call, if it has one.
    pub now: Option<String>,
}

impl RunSpec {
    /// This spec with an entry added or replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.0.insert(name.to_owned(), value.to_string());
        self
    }

    /// This spec with an entry for examples: their digest, or `none` for an empty list.
    #[must_use]
    pub fn with_examples(self, name: &str, examples: &[Example]) -> Self {
        match examples {
            [] => self.with(name, "none"),
            examples => self.with(name, examples_digest(examples)),
        }
    }

    /// The entries that differ from the run that was `begun`, by name.
    pub fn differences(&self, begun: &Self) -> Vec<Difference> {
        let names: std::collections::BTreeSet<&String> =
            self.0.keys().chain(begun.0.keys()).collect();
        names
            .into_iter()
            .filter(|&name| self.0.get(name) != begun.0.get(name))
            .map(|name| Difference {
                name: name.clone(),
                before: begun.0.get(name).cloned(),
                now: self.0.get(name).cloned(),
            })
            .collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| match value {
            Some(value) => value.chars().take(40).collect(),
            None => "not set".to_owned(),
        };
        write!(
            f,
            "{}: it was begun with {}, now it is {}",
            self.name,
            text(&self.before),
            text(&self.now)
        )
    }
}

/// `differences`, each on an indented line of its own.
pub(crate) fn list_differences(differences: &[Difference]) -> String {
    differences
        .iter()
        .map(|difference| format!("\n  {difference}"))
        .collect()
}

/// A digest of the examples' tokens and loss masks, in order.
fn examples_digest(examples: &[Example]) -> Digest {
    let mut writer = DigestWriter::new("fedlora examples v1");
    writer.number(examples.len() as u64);
    for example in examples {
        let tokens: Vec<u8> = example
            .tokens()
            .iter()
            .flat_map(|token| token.to_le_bytes())
            .collect();
        let loss_mask: Vec<u8> = example
            .loss_mask()
            .iter()
            .map(|&target| target.into())
            .collect();
        writer.bytes(&tokens).bytes(&loss_mask);
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_differs_and_nothing_else() {
        let begun = RunSpec::default().with("rank", 8).with("seed", 1);
        assert_eq!(begun.differences(&begun), []);
        let now = RunSpec::default()
            .with("rank", 16)
            .with("seed", 1)
            .with("alpha", 2.0);
        let said: Vec<String> = now
            .differences(&begun)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            said,
            [
                "alpha: it was begun with not set, now it is 2",
                "rank: it was begun with 8, now it is 16"
            ]
        );
    }

    #[test]
    fn the_digest_depends_on_the_order_of_examples_and_on_loss_masks() {
        let example = |tokens: [u32; 3], target| Example::new(tokens.to_vec(), vec![target; 3]);
        let of = |examples: &[Example]| RunSpec::default().with_examples("data", examples);
        let (one, two) = (example([1, 2, 3], true), example([4, 5, 6], true));
        let all = of(&[one.clone(), two.clone()]);
        assert_eq!(all, of(&[one.clone(), two.clone()]));
        assert_ne!(all, of(&[two.clone(), one.clone()]));
        assert_ne!(all, of(&[one.clone(), example([4, 5, 6], false)]));
        assert_ne!(all, of(&[one]));
        assert_ne!(all, of(&[]));
    }
}
