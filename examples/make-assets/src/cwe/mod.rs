//! From MITRE's CWE catalogue to the embedded tokenizer, pretraining text and instruction
//! pairs. Not part of a round: this made what lies in `examples/assets`.
//!
//! Everything here is a pure function of the catalogue file: no clock, no randomness, and
//! whatever choice is to be made is made by a hash of the text that it is about. The same
//! catalogue gives the same bytes.

pub mod catalogue;
pub mod corpus;
pub mod institutions;
pub mod overlap;
pub mod pairs;
pub mod vocabulary;
pub mod xml;

use fedlora_common::digest::Digest;

/// Text as it is compared: lower case, every run of other than letters and digits one space.
pub fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// A number in `0..1000` that depends on the purpose and on the normalised text alone.
pub fn per_mille(purpose: &'static str, text: &str) -> u64 {
    let digest = Digest::of(purpose, normalised(text).as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(first) % 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_ignores_case_space_and_punctuation() {
        assert_eq!(
            normalised("  A  buffer-overflow,\n(heap). "),
            "a buffer overflow heap"
        );
        assert_eq!(per_mille("t", "A b."), per_mille("t", "a  B"));
        assert_ne!(normalised("a b"), normalised("ab"));
    }
}
