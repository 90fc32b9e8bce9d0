//! The labels of one question as a tree of tokens, in which the likeliest is searched for.

use fedlora_data::TextPipeline;
use fedlora_model::Example;

use crate::decode::sequence::{DecodeError, Decoder};
use crate::eval::error::EvaluationError;
use crate::eval::labels::LabelSet;
use crate::eval::question::Question;

/// A question's prompt and all its labels as responses, as tokens. It serves any adapter of the
/// base. `Debug` shows their numbers only.
pub struct LabelTree {
    /// The tokens that begin all candidates.
    prompt: Vec<u32>,
    root: Branch,
}

impl std::fmt::Debug for LabelTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabelTree")
            .field("prompt_tokens", &self.prompt.len())
            .finish_non_exhaustive()
    }
}

/// What can follow a beginning.
#[derive(Default)]
struct Branch {
    /// The label that ends here, the first of several with equal tokens.
    label: Option<usize>,
    /// They differ in their first tokens.
    edges: Vec<Edge>,
}

/// Tokens without a choice between them, and what can follow.
struct Edge {
    tokens: Vec<u32>,
    /// Which of them are target tokens.
    targets: Vec<bool>,
    end: Branch,
}

/// A label's index, and its tokens and loss mask from some place on.
type Rest<'a> = (usize, &'a [u32], &'a [bool]);

impl LabelTree {
    /// Tokenises the question with each label as its response; none where that is longer than
    /// `max_tokens` with at least one of them.
    ///
    /// # Errors
    /// [`EvaluationError::Refused`] where the template refuses the record.
    pub fn new(
        pipeline: &TextPipeline,
        question: &Question,
        labels: &LabelSet,
        max_tokens: usize,
    ) -> Result<Option<Self>, EvaluationError> {
        let mut candidates = Vec::with_capacity(labels.labels().len());
        for label in labels.labels() {
            let candidate = pipeline.chat(&question.answered(label));
            let candidate = candidate.map_err(|source| EvaluationError::Refused {
                place: question.place().to_owned(),
                source,
            })?;
            if candidate.tokens().len() > max_tokens {
                return Ok(None);
            }
            candidates.push(candidate);
        }
        let shared = common_prefix(&candidates);
        let rests: Vec<Rest<'_>> = candidates
            .iter()
            .enumerate()
            .map(|(label, candidate)| {
                let mask = candidate.loss_mask();
                let end = mask
                    .iter()
                    .rposition(|target| *target)
                    .map_or(0, |at| at + 1);
                let end = end.max(shared);
                (label, &candidate.tokens()[shared..end], &mask[shared..end])
            })
            .collect();
        Ok(Some(Self {
            prompt: candidates[0].tokens()[..shared].to_vec(),
            root: Branch::of(rests),
        }))
    }

    /// The index of the label whose target tokens have the highest likelihood, the first of
    /// equals. `decoder` must be empty.
    ///
    /// No label is likelier than its beginning is: a beginning that is less likely than a label
    /// that is known is not followed. What candidates share is computed once.
    ///
    /// # Errors
    /// [`DecodeError`], as for more tokens than the model has positions.
    pub fn likeliest(&self, decoder: &Decoder) -> Result<usize, DecodeError> {
        let mut sequence = decoder.fork();
        if !self.prompt.is_empty() {
            sequence.extend(&self.prompt)?;
        }
        let mut best = Best {
            label: usize::MAX,
            sum: f64::NEG_INFINITY,
        };
        // Target tokens of the prompt are equally likely for all.
        self.root.search(&sequence, 0.0, &mut best)?;
        // Where no likelihood is a number, any label is as good.
        Ok(if best.label == usize::MAX {
            0
        } else {
            best.label
        })
    }
}

/// The likeliest label so far, and the sum of its target tokens' log-likelihoods.
struct Best {
    label: usize,
    sum: f64,
}

impl Branch {
    fn of(mut rests: Vec<Rest<'_>>) -> Self {
        rests.sort_by(|a, b| a.1.cmp(b.1).then(a.0.cmp(&b.0)));
        let label = rests.iter().find(|rest| rest.1.is_empty());
        let label = label.map(|rest| rest.0);
        let rests: Vec<_> = rests
            .into_iter()
            .filter(|rest| !rest.1.is_empty())
            .collect();
        let groups = rests.chunk_by(|a, b| a.1[0] == b.1[0]);
        Self {
            label,
            edges: groups.map(Edge::of).collect(),
        }
    }

    /// Looks for a likelier label than `best`. `sum` is the log-likelihood of the target tokens
    /// up to here.
    fn search(&self, sequence: &Decoder, sum: f64, best: &mut Best) -> Result<(), DecodeError> {
        if let Some(label) = self.label
            && (sum > best.sum || sum == best.sum && label < best.label)
        {
            *best = Best { label, sum };
        }
        if self.edges.is_empty() {
            return Ok(());
        }
        let next = sequence.next_log_likelihoods()?;
        let mut edges: Vec<(f64, &Edge)> = self
            .edges
            .iter()
            .map(|edge| (sum + edge.first(&next), edge))
            .collect();
        // The likeliest first, so that the others need not be followed.
        edges.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (bound, edge) in edges {
            if bound < best.sum {
                break;
            }
            if edge.tokens.len() == 1 && edge.end.edges.is_empty() {
                edge.end.search(sequence, bound, best)?;
                continue;
            }
            let mut longer = sequence.fork();
            let scores = longer.log_likelihoods(&edge.tokens)?;
            let targets = scores.iter().zip(&edge.targets);
            let scores = targets.filter_map(|(score, target)| target.then_some(*score));
            edge.end.search(&longer, sum + scores.sum::<f64>(), best)?;
        }
        Ok(())
    }
}

impl Edge {
    /// The tokens that all of `rests` begin with, which is one at least.
    fn of(rests: &[Rest<'_>]) -> Self {
        let (_, first, mask) = rests[0];
        let shared = rests.iter().fold(first.len(), |shared, (_, rest, _)| {
            let same = first[..shared].iter().zip(*rest);
            same.take_while(|(a, b)| a == b).count()
        });
        let rests = rests
            .iter()
            .map(|(label, tokens, mask)| (*label, &tokens[shared..], &mask[shared..]));
        Self {
            tokens: first[..shared].to_vec(),
            targets: mask[..shared].to_vec(),
            end: Branch::of(rests.collect()),
        }
    }

    /// The log-likelihood of its first token, given that of every token.
    fn first(&self, next: &[f64]) -> f64 {
        if self.targets[0] {
            next.get(self.tokens[0] as usize)
                .copied()
                .unwrap_or(f64::NEG_INFINITY)
        } else {
            0.0
        }
    }
}

/// Length of the common prefix in tokens, shorter than each candidate.
fn common_prefix(candidates: &[Example]) -> usize {
    let Some(first) = candidates.first().map(Example::tokens) else {
        return 0;
    };
    candidates
        .iter()
        .map(|other| {
            let same = first
                .iter()
                .zip(other.tokens())
                .take_while(|(x, y)| x == y)
                .count();
            same.min(other.tokens().len().saturating_sub(1))
        })
        .min()
        .unwrap_or(0)
}
