//! The choice of the next token, given the logits of all tokens.

use fedlora_model::SplitMix;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The token with the highest logit; of equals, the one with the lowest id.
    Greedy,
    /// A token drawn from a distribution.
    Random(Random),
}

/// The distribution that random tokens are drawn from. In the order of Transformers: logits are
/// divided by the temperature; the `top_k` likeliest tokens stay; and of those the fewest with a
/// joint probability of at least `top_p` (Holtzman et al., 2020).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Random {
    temperature: f64,
    top_k: Option<usize>,
    top_p: f64,
    seed: u64,
}

impl Sampling {
    /// Random tokens at a temperature above 0; as it nears 0, the choice nears
    /// [`Sampling::Greedy`]. `top_k` of `None` and `top_p` of 1 keep all tokens. Equal seeds give
    /// equal tokens for equal logits.
    ///
    /// # Errors
    /// [`SamplingError::Option`] for a number out of range.
    pub fn random(
        temperature: f64,
        top_k: Option<usize>,
        top_p: f64,
        seed: u64,
    ) -> Result<Self, SamplingError> {
        let refuse = |option, got: String, expected| {
            Err(SamplingError::Option {
                option,
                got,
                expected,
            })
        };
        if !(temperature.is_finite() && temperature > 0.0) {
            let expected = "a finite number above 0";
            return refuse("temperature", temperature.to_string(), expected);
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            let expected = "a probability above 0, 1 for all tokens";
            return refuse("top-p", top_p.to_string(), expected);
        }
        if top_k == Some(0) {
            return refuse("top-k", "0".to_owned(), "at least 1 token to choose from");
        }
        Ok(Self::Random(Random {
            temperature,
            top_k,
            top_p,
            seed,
        }))
    }
}

/// Chooses tokens one after another.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix,
}

impl Sampler {
    /// A sampler at the beginning of its seed's stream.
    pub fn new(sampling: Sampling) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Random(random) => random.seed,
        };
        Self {
            sampling,
            random: SplitMix::new(seed, 0),
        }
    }

    /// The id of the next token.
    ///
    /// # Errors
    /// [`SamplingError::NotFinite`] where a logit is NaN or infinite, or `logits` is empty.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32, SamplingError> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(SamplingError::NotFinite);
        }
        match self.sampling {
            Sampling::Greedy => Ok(best(logits)),
            Sampling::Random(random) => {
                let kept = random.kept(logits);
                let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
                let mut left = self.random.unit() * total;
                for &(token, weight) in &kept {
                    if left < weight {
                        return Ok(token);
                    }
                    left -= weight;
                }
                // Only rounding leads here.
                Ok(kept.last().map_or_else(|| best(logits), |last| last.0))
            }
        }
    }
}

impl Random {
    /// The tokens to choose from, likeliest first, with weights in proportion to their
    /// probabilities.
    fn kept(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let falling = |a: &u32, b: &u32| {
            let (x, y) = (logits[*a as usize], logits[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
        if let Some(k) = self.top_k.filter(|&k| k < tokens.len()) {
            tokens.select_nth_unstable_by(k, falling);
            tokens.truncate(k);
        }
        tokens.sort_unstable_by(falling);
        let highest = f64::from(logits[tokens[0] as usize]);
        let mut kept: Vec<(u32, f64)> = tokens
            .into_iter()
            .map(|token| {
                let below = f64::from(logits[token as usize]) - highest;
                (token, (below / self.temperature).exp())
            })
            .collect();
        if self.top_p < 1.0 {
            let enough = self.top_p * kept.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut sum = 0.0;
            let count = kept
                .iter()
                .take_while(|(_, weight)| {
                    let needed = sum < enough;
                    sum += weight;
                    needed
                })
                .count();
            kept.truncate(count.max(1));
        }
        kept
    }
}

/// The place of the largest logit, the first of equals.
fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// Options or logits from which no token can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// An option out of range.
    #[error("the {option} is {got}: expected {expected}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The value given, as text.
        got: String,
        /// The values that are accepted, in words.
        expected: &'static str,
    },
    /// A logit is NaN or infinite, or there are no logits.
    #[error("the model's logits are not finite numbers: the base or the adapter is broken")]
    NotFinite,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(temperature: f64, top_k: Option<usize>, top_p: f64, seed: u64) -> Sampler {
        Sampler::new(Sampling::random(temperature, top_k, top_p, seed).unwrap())
    }

    /// How often each of the tokens comes in 20,000 draws, as shares.
    fn shares(mut sampler: Sampler, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.next(logits).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn logits(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() as f32).collect()
    }

    fn near(got: &[f64], expected: &[f64]) {
        for (x, y) in got.iter().zip(expected) {
            // Four standard deviations of a share of one half.
            assert!((x - y).abs() < 0.0142, "{got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn shares_are_the_probabilities() {
        let p = [0.05, 0.4, 0.15, 0.3, 0.1];
        near(&shares(random(1.0, None, 1.0, 1), &logits(&p)), &p);
        // At half the temperature, probabilities in proportion to their squares.
        let sum: f64 = p.iter().map(|p| p * p).sum();
        let sharper = p.map(|p| p * p / sum);
        near(&shares(random(0.5, None, 1.0, 2), &logits(&p)), &sharper);
    }

    #[test]
    fn top_p_and_top_k_leave_out_the_unlikely() {
        let p = [0.05, 0.4, 0.15, 0.3, 0.1];
        // 0.4 + 0.3 are not yet 0.75: the 0.15 is needed too.
        let expected = [0.0, 0.4 / 0.85, 0.15 / 0.85, 0.3 / 0.85, 0.0];
        let got = shares(random(1.0, None, 0.75, 3), &logits(&p));
        near(&got, &expected);
        assert_eq!((got[0], got[4]), (0.0, 0.0));
        let got = shares(random(1.0, Some(2), 1.0, 4), &logits(&p));
        near(&got, &[0.0, 0.4 / 0.7, 0.0, 0.3 / 0.7, 0.0]);
        // Of the two, the first alone has half.
        let got = shares(random(1.0, Some(2), 0.5, 5), &logits(&p));
        assert_eq!(got[1].round(), 1.0);
        // However small, the likeliest is left.
        let got = shares(random(1.0, None, 1e-9, 6), &logits(&p));
        assert_eq!(got[1].round(), 1.0);
        near(&shares(random(1.0, Some(99), 1.0, 7), &logits(&p)), &p);
    }

    #[test]
    fn a_seed_repeats() {
        let logits = logits(&[0.2; 5]);
        let draw = |seed| {
            let mut sampler = random(1.0, None, 0.9, seed);
            (0..20)
                .map(|_| sampler.next(&logits).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn greedy_takes_the_first_of_the_likeliest() {
        let mut greedy = Sampler::new(Sampling::Greedy);
        assert_eq!(greedy.next(&[0.0, 3.0, -1.0, 3.0]).unwrap(), 1);
    }

    #[test]
    fn refuses_what_makes_no_distribution() {
        for (temperature, top_k, top_p) in [
            (f64::NAN, None, 1.0),
            (0.0, None, 1.0),
            (-1.0, None, 1.0),
            (f64::INFINITY, None, 1.0),
            (1.0, Some(0), 1.0),
            (1.0, None, 0.0),
            (1.0, None, 1.1),
            (1.0, None, f64::NAN),
        ] {
            let refused = Sampling::random(temperature, top_k, top_p, 1);
            assert!(matches!(refused, Err(SamplingError::Option { .. })));
        }
        for broken in [vec![], vec![1.0, f32::NAN], vec![f32::INFINITY, 0.0]] {
            let greedy = Sampler::new(Sampling::Greedy).next(&broken);
            assert_eq!(greedy, Err(SamplingError::NotFinite));
        }
    }
}
