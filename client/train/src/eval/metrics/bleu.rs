//! Corpus BLEU (Papineni et al., 2002) with one reference a segment, as `corpus_bleu` of
//! sacrebleu gives it by default: tokenizer `13a` (that of NIST's mteval-v13a), n-grams up to
//! four, exponential smoothing (Chen and Cherry, 2014, method 3), case kept.

use std::collections::HashMap;

/// Length of the longest n-gram in tokens.
const ORDER: usize = 4;

/// BLEU of a corpus, with its parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    /// The score, from 0 to 100.
    pub score: f64,
    /// Smoothed precision of 1- to 4-grams, in percent.
    pub precisions: [f64; ORDER],
    /// Factor for hypotheses shorter than their references, 0 to 1.
    pub brevity_penalty: f64,
    /// Number of tokens in all hypotheses.
    pub hypothesis_tokens: usize,
    /// Number of tokens in all references.
    pub reference_tokens: usize,
}

/// Scores pairs of a hypothesis and its reference as one corpus: n-grams are counted over all
/// segments, not averaged.
pub fn corpus_bleu<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Bleu {
    let (mut matched, mut total) = ([0_usize; ORDER], [0_usize; ORDER]);
    let (mut hypothesis_tokens, mut reference_tokens) = (0, 0);
    for (hypothesis, reference) in pairs {
        let (hypothesis, reference) = (tokenize(hypothesis), tokenize(reference));
        hypothesis_tokens += hypothesis.len();
        reference_tokens += reference.len();
        for n in 1..=ORDER {
            let (ours, theirs) = (ngrams(&hypothesis, n), ngrams(&reference, n));
            total[n - 1] += hypothesis.len().saturating_sub(n - 1);
            matched[n - 1] += ours
                .iter()
                .map(|(gram, &count)| count.min(theirs.get(gram).copied().unwrap_or(0)))
                .sum::<usize>();
        }
    }
    let brevity_penalty = if hypothesis_tokens >= reference_tokens {
        1.0
    } else if hypothesis_tokens == 0 {
        0.0
    } else {
        (1.0 - reference_tokens as f64 / hypothesis_tokens as f64).exp()
    };
    let precisions = precisions(matched, total);
    // An order without any n-gram keeps a precision of zero, and with it the whole score.
    let score = if precisions.contains(&0.0) {
        0.0
    } else {
        let mean = precisions.iter().map(|p| p.ln()).sum::<f64>() / ORDER as f64;
        brevity_penalty * mean.exp()
    };
    Bleu {
        score,
        precisions,
        brevity_penalty,
        hypothesis_tokens,
        reference_tokens,
    }
}

/// Percent matched by n-gram length. A length without a match counts as half a match, the next
/// such as a quarter, and so on; where nothing matches at all, nothing is smoothed.
fn precisions(matched: [usize; ORDER], total: [usize; ORDER]) -> [f64; ORDER] {
    let mut precisions = [0.0; ORDER];
    if matched == [0; ORDER] {
        return precisions;
    }
    let mut smoothing = 1.0;
    for n in 0..ORDER {
        if total[n] == 0 {
            break;
        }
        precisions[n] = if matched[n] == 0 {
            smoothing *= 2.0;
            100.0 / (smoothing * total[n] as f64)
        } else {
            100.0 * matched[n] as f64 / total[n] as f64
        };
    }
    precisions
}

fn ngrams(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in tokens.windows(n) {
        *counts.entry(gram).or_insert(0) += 1;
    }
    counts
}

/// The `13a` tokens of a segment.
pub fn tokenize(segment: &str) -> Vec<String> {
    let mut line = segment
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    // In this order: `&amp;lt;` comes out as `<`.
    for (entity, text) in [
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ] {
        line = line.replace(entity, text);
    }
    let line: Vec<char> = format!(" {line} ").chars().collect();
    let line = split_symbols(&line);
    let line = split_pairs(&line, |a, b| !a.is_ascii_digit() && is_point(b), PAIR_END);
    let line = split_pairs(&line, |a, b| is_point(a) && !b.is_ascii_digit(), PAIR_START);
    let line = split_pairs(&line, |a, b| a.is_ascii_digit() && b == '-', PAIR_END);
    let line: String = line.into_iter().collect();
    line.split(is_space)
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
        .collect()
}

/// White space as Python has it: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_point(c: char) -> bool {
    c == '.' || c == ','
}

/// Puts spaces around ASCII punctuation except apostrophe, comma, hyphen and full stop.
fn split_symbols(line: &[char]) -> Vec<char> {
    let mut out = Vec::with_capacity(line.len() + 16);
    for &c in line {
        if c == ' ' || (c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.')) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    out
}

/// Spaces in `a b` so that `b` stands alone.
const PAIR_END: (&str, &str, &str) = ("", " ", " ");
/// Spaces in `a b` so that `a` stands alone.
const PAIR_START: (&str, &str, &str) = (" ", " ", "");

/// Puts spaces before, between and after each pair of neighbours that `fits`. Pairs do not
/// overlap: the search continues after each match.
fn split_pairs(
    line: &[char],
    fits: impl Fn(char, char) -> bool,
    (before, between, after): (&str, &str, &str),
) -> Vec<char> {
    let mut out = Vec::with_capacity(line.len() + 16);
    let mut at = 0;
    while at < line.len() {
        match line.get(at + 1) {
            Some(&next) if fits(line[at], next) => {
                out.extend(before.chars());
                out.push(line[at]);
                out.extend(between.chars());
                out.push(next);
                out.extend(after.chars());
                at += 2;
            }
            _ => {
                out.push(line[at]);
                at += 1;
            }
        }
    }
    out
}
