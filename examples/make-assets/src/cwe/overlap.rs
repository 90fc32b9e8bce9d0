//! Which texts share a run of words: keeps held-out text out of what is trained on.

use std::collections::HashSet;

use super::normalised;

/// Length of a word run that counts as the same text. Thirteen words is what GPT-3's authors
/// took for the same purpose (Brown et al. 2020, appendix C).
pub const RUN: usize = 13;

/// A set of word runs.
#[derive(Debug, Default)]
pub struct Overlap {
    runs: HashSet<String>,
}

impl Overlap {
    /// Adds every run of [`RUN`] words of each paragraph; a shorter one counts as one run.
    pub fn add(&mut self, text: &str) {
        self.runs.extend(text.lines().flat_map(runs));
    }

    /// Whether `text` shares a run with any text added before, or holds a shorter one whole.
    pub fn touches(&self, text: &str) -> bool {
        let normal = normalised(text);
        let words: Vec<&str> = normal.split(' ').collect();
        (MINIMUM..=RUN).any(|length| {
            words
                .windows(length)
                .any(|window| self.runs.contains(&window.join(" ")))
        })
    }
}

/// Fewer words than this say too little to be called the same text.
pub const MINIMUM: usize = 5;

fn runs(text: &str) -> Vec<String> {
    let normal = normalised(text);
    let words: Vec<&str> = normal.split(' ').collect();
    if words.len() < RUN {
        return vec![normal];
    }
    words.windows(RUN).map(|window| window.join(" ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_run_is_found_and_a_shared_topic_is_not() {
        let mut overlap = Overlap::default();
        overlap.add("one two three four five six seven eight nine ten eleven twelve thirteen x");
        overlap.add("A short text of six words.\nThe second paragraph stands alone.");
        assert!(overlap.touches("the second paragraph stands alone"));
        assert!(overlap.touches(
            "So: One, two, three, four, five six seven eight nine ten eleven twelve thirteen."
        ));
        assert!(overlap.touches("Before. A short text of six words! After."));
        assert!(!overlap.touches("one two three four five six seven eight nine ten eleven twelve"));
        assert!(!overlap.touches("a short text"));
        assert!(!overlap.touches(""));
    }
}
