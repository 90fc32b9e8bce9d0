//! Plans that are compared on equal seeds: how far apart they are, and how sure that is.

use fedlora_client::personal::percent_below;

use super::page::own_data;
use super::report::{Document, Scores};

/// The 97.5th percentiles of Student's t with 1 to 30 degrees of freedom (NIST/SEMATECH e-Handbook
/// of Statistical Methods, 1.3.6.7.2).
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// The runs of one plan, with several seeds.
pub(super) struct Plan<'a> {
    pub(super) label: &'a str,
    pub(super) runs: Vec<&'a Document>,
}

impl<'a> Plan<'a> {
    /// The plans of these runs, in the order in which they first come.
    pub(super) fn all(documents: &'a [Document]) -> Vec<Self> {
        let mut plans: Vec<Self> = Vec::new();
        for run in documents {
            let label = run.label.as_deref().unwrap_or("plan");
            match plans.iter_mut().find(|plan| plan.label == label) {
                Some(plan) => plan.runs.push(run),
                None => plans.push(Self {
                    label,
                    runs: vec![run],
                }),
            }
        }
        plans
    }

    /// The perplexity on own data that the plan's members reach, for each seed.
    pub(super) fn reached(&self) -> Vec<f64> {
        self.runs.iter().map(|run| own_data(best(run))).collect()
    }

    /// How far what members reach lies below what they reach alone.
    pub(super) fn below_alone(&self) -> Option<Interval> {
        let alone = |run: &Document| run.eval.local_only.as_ref().map(own_data);
        let pairs = self
            .runs
            .iter()
            .map(|run| Some((alone(run)?, own_data(best(run)))));
        Interval::of(pairs.collect::<Option<Vec<_>>>()?)
    }

    /// How far what members reach lies below what they reach with the first of these plans, on the
    /// seeds that both ran with; nothing for the first itself.
    pub(super) fn below_first(&self, plans: &[Self]) -> Option<Interval> {
        let first = plans.first().filter(|first| first.label != self.label)?;
        let pairs = self.runs.iter().filter_map(|run| {
            let same = first.runs.iter().find(|other| other.seed == run.seed)?;
            Some((own_data(best(same)), own_data(best(run))))
        });
        Interval::of(pairs.collect())
    }
}

/// What members have in the end.
pub(super) fn best(document: &Document) -> &Scores {
    let eval = &document.eval;
    eval.personalised.as_ref().unwrap_or(&eval.federated)
}

/// How far one perplexity lies below another, in percent: the mean over seeds, and the interval that
/// holds it with 95 % confidence, if seeds are alike as a normal distribution of the logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    /// From pairs of perplexities with equal seeds: what the second is below the first. One pair
    /// says nothing about the next.
    fn of(pairs: Vec<(f64, f64)>) -> Option<Self> {
        let logs: Vec<f64> = pairs
            .iter()
            .map(|(other, own)| (own / other).ln())
            .collect();
        let count = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / count;
        let t = T.get(logs.len().checked_sub(2)?.min(T.len() - 1))?;
        let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
        let half = t * (squares / (count - 1.0) / count).sqrt();
        let below = |log: f64| percent_below(1.0, log.exp());
        Some(Self {
            mean: below(mean),
            low: below(mean + half),
            high: below(mean - half),
        })
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { mean, low, high } = self;
        write!(f, "{mean:+.1} % ({low:+.1} to {high:+.1})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: logarithms -0.01, -0.03 and -0.05 have the mean -0.03 and the standard error
    /// 0.02 / sqrt 3, so that the interval is 4.303 of these wide to each side.
    #[test]
    fn an_interval_is_students() {
        let pairs = [-0.01_f64, -0.03, -0.05].map(|log| (10.0, 10.0 * log.exp()));
        let found = Interval::of(pairs.to_vec()).unwrap();
        let half = 4.303 * 0.02 / 3.0_f64.sqrt();
        let below = |log: f64| 100.0 * (1.0 - log.exp());
        for (got, expected) in [
            (found.mean, below(-0.03)),
            (found.low, below(-0.03 + half)),
            (found.high, below(-0.03 - half)),
        ] {
            assert!((got - expected).abs() < 1e-9, "{got} {expected}");
        }
        assert_eq!(found.to_string(), "+3.0 % (-2.0 to +7.7)");
    }

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(Interval::of(vec![(10.0, 9.0)]), None);
        assert_eq!(Interval::of(Vec::new()), None);
        let many = vec![(10.0, 9.0); 40];
        let found = Interval::of(many).unwrap();
        assert!((found.high - found.low).abs() < 1e-9 && (found.mean - 10.0).abs() < 1e-9);
    }
}
