//! What n-gram models of the training text need for the validation text: the yardsticks for
//! the base model's loss.

use std::collections::HashMap;

use super::corpus::Corpus;

/// Cross-entropies on the validation tokens in nats a token.
#[derive(Debug, Clone, Copy)]
pub struct Baselines {
    /// Each token alone, with one added to every count.
    pub unigram: f64,
    /// Each token after the one before it, interpolated with the unigram.
    pub bigram: f64,
}

/// Counts the training tokens and scores the validation ones: all but each document's first,
/// which are those that the model predicts.
///
/// The bigram is smoothed as Witten and Bell did (1991): after token `a`, seen `n` times with
/// `t` different successors, the unigram has the weight `t / (n + t)`.
pub fn baselines(corpus: &Corpus) -> Baselines {
    let mut single = vec![0_u64; corpus.vocab_size];
    let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
    let mut before = vec![(0_u64, 0_u64); corpus.vocab_size];
    for document in &corpus.train {
        for pair in document.windows(2) {
            single[pair[1] as usize] += 1;
            let count = pairs.entry((pair[0], pair[1])).or_default();
            *count += 1;
            let (seen, kinds) = &mut before[pair[0] as usize];
            *seen += 1;
            *kinds += u64::from(*count == 1);
        }
    }
    let total = single.iter().sum::<u64>() as f64 + corpus.vocab_size as f64;
    let (mut unigram, mut bigram, mut tokens) = (0.0, 0.0, 0.0);
    for document in &corpus.validation {
        for pair in document.windows(2) {
            let alone = (single[pair[1] as usize] + 1) as f64 / total;
            let (seen, kinds) = before[pair[0] as usize];
            let together = if seen == 0 {
                alone
            } else {
                let count = pairs.get(&(pair[0], pair[1])).copied().unwrap_or(0) as f64;
                (count + kinds as f64 * alone) / (seen + kinds) as f64
            };
            unigram -= alone.ln();
            bigram -= together.ln();
            tokens += 1.0;
        }
    }
    Baselines {
        unigram: unigram / tokens,
        bigram: bigram / tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_alternates_is_certain_for_the_bigram() {
        let document: Vec<u32> = (0..1000).map(|i| i % 2).collect();
        let corpus = Corpus {
            train: vec![document.clone()],
            validation: vec![document],
            vocab_size: 2,
            bos: 0,
            end_of_text: 1,
            end_of_turn: 1,
        };
        let found = baselines(&corpus);
        assert!((found.unigram - 2.0_f64.ln()).abs() < 1e-3);
        assert!(found.bigram < 0.01);
    }
}
