//! Who holds which records: an institution for each value of a field, or records dealt out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use fedlora_common::digest::DigestWriter;
use fedlora_data::{Dataset, HeldOut, Record};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// The fewest records that a member trains on, and is evaluated on.
const MIN_RECORDS: (usize, usize) = (8, 1);

/// How records are dealt out to members.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Partition {
    /// Each value of the field is an institution.
    Field,
    /// Each member draws its mixture of the field's values from a Dirichlet distribution around
    /// that of all records, with this concentration above 0: small is far from it, large is near
    /// (Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for
    /// Federated Visual Classification", section 3). All have equally many records.
    Dirichlet(f64),
    /// All records at random, equally many to each.
    Iid,
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "field" => Ok(Self::Field),
            None if text == "iid" => Ok(Self::Iid),
            Some(("dirichlet", alpha)) => match alpha.parse::<f64>() {
                Ok(alpha) if alpha.is_finite() && alpha > 0.0 => Ok(Self::Dirichlet(alpha)),
                _ => Err(format!(
                    "'{alpha}' is no concentration: use a number above 0"
                )),
            },
            _ => Err("use field, dirichlet:ALPHA or iid".into()),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => f.write_str("field"),
            Self::Dirichlet(alpha) => write!(f, "dirichlet:{alpha}"),
            Self::Iid => f.write_str("iid"),
        }
    }
}

/// What one member trains on, and what it is evaluated on.
pub(super) type Share = (Dataset, Dataset);

/// Deals the records of each value out to `members` members, the same for the same seed. About
/// `held_out` of them are to evaluate on; each member's follow the mixture that it trains on.
///
/// # Errors
/// Too few records for so many members.
pub(super) fn deal(
    groups: BTreeMap<String, Dataset>,
    partition: Partition,
    members: usize,
    held_out: HeldOut,
    seed: u64,
) -> anyhow::Result<Vec<Share>> {
    let mut rng = rng(seed);
    let (mut training, mut held): (Vec<_>, Vec<_>) = groups
        .into_values()
        .map(|records| {
            let (training, held) = records.split(held_out);
            (training.records().to_vec(), held.records().to_vec())
        })
        .unzip();
    let alpha = match partition {
        Partition::Dirichlet(alpha) => alpha,
        Partition::Field | Partition::Iid => {
            (training, held) = (vec![training.concat()], vec![held.concat()]);
            1.0
        }
    };
    let count = |pools: &[Vec<Record>]| pools.iter().map(Vec::len).sum::<usize>();
    let each = (count(&training) / members, count(&held) / members);
    if each.0 < MIN_RECORDS.0 || each.1 < MIN_RECORDS.1 {
        bail!(
            "{} records to train on and {} held out are too few for {members} members: each needs \
             {} and {}",
            count(&training),
            count(&held),
            MIN_RECORDS.0,
            MIN_RECORDS.1
        );
    }
    let prior: Vec<f64> = training.iter().map(|pool| pool.len() as f64).collect();
    let mixtures: Vec<Vec<f64>> = (0..members)
        .map(|_| dirichlet(&prior, alpha, &mut rng))
        .collect();
    let training = draw(training, &mixtures, &mut rng);
    let held = draw(held, &mixtures, &mut rng);
    let dataset = |records: Vec<Record>| records.into_iter().collect();
    let shares = training.into_iter().zip(held);
    Ok(shares
        .map(|(training, held)| (dataset(training), dataset(held)))
        .collect())
}

fn rng(seed: u64) -> StdRng {
    let mut writer = DigestWriter::new("fedlora 1 simulated partition");
    StdRng::from_seed(*writer.number(seed).finish().as_bytes())
}

/// Deals all of `pools` out. Members take one record each in turn, so that none is left with what
/// the others did not want; a pool that is empty is left out of a member's mixture.
fn draw<T>(mut pools: Vec<Vec<T>>, mixtures: &[Vec<f64>], rng: &mut StdRng) -> Vec<Vec<T>> {
    for pool in &mut pools {
        pool.shuffle(rng);
    }
    let mut hands: Vec<Vec<T>> = mixtures.iter().map(|_| Vec::new()).collect();
    let mut order: Vec<usize> = (0..mixtures.len()).collect();
    loop {
        order.shuffle(rng);
        for &member in &order {
            let weights: Vec<f64> = pools
                .iter()
                .zip(&mixtures[member])
                .map(|(pool, part)| if pool.is_empty() { 0.0 } else { *part })
                .collect();
            let record = match pick(&weights, rng) {
                Some(place) => pools[place].pop(),
                // All that it wants is gone: it takes of what is left.
                None => {
                    let left: Vec<f64> = pools.iter().map(|pool| pool.len() as f64).collect();
                    pick(&left, rng).and_then(|place| pools[place].pop())
                }
            };
            let Some(record) = record else { return hands };
            hands[member].push(record);
        }
    }
}

/// A place, by its weight; none where all are 0.
fn pick(weights: &[f64], rng: &mut StdRng) -> Option<usize> {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let mut point = rng.random::<f64>() * total;
    let chosen = weights.iter().position(|weight| {
        point -= weight;
        point < 0.0
    });
    // Rounding may leave nothing for the last one.
    chosen.or_else(|| weights.iter().rposition(|weight| *weight > 0.0))
}

/// A point of the Dirichlet distribution whose mean is `prior`, normalised, and whose
/// concentration is `alpha`.
fn dirichlet(prior: &[f64], alpha: f64, rng: &mut StdRng) -> Vec<f64> {
    let total: f64 = prior.iter().sum();
    // As logarithms: small shapes give numbers below the smallest of f64.
    let logs: Vec<f64> = prior
        .iter()
        .map(|part| ln_gamma_variate(alpha * part / total, rng))
        .collect();
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<f64> = logs.iter().map(|log| (log - most).exp()).collect();
    let total: f64 = parts.iter().sum();
    parts.into_iter().map(|part| part / total).collect()
}

/// The logarithm of a gamma variate (Marsaglia and Tsang 2000, "A Simple Method for Generating
/// Gamma Variables"); a shape of 0 gives minus infinity.
fn ln_gamma_variate(shape: f64, rng: &mut StdRng) -> f64 {
    if shape <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if shape < 1.0 {
        return ln_gamma_variate(shape + 1.0, rng) + positive(rng).ln() / shape;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && positive(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln();
        }
    }
}

/// A normal variate (Box and Muller 1958).
pub(super) fn normal(rng: &mut StdRng) -> f64 {
    let angle = std::f64::consts::TAU * rng.random::<f64>();
    (-2.0 * positive(rng).ln()).sqrt() * angle.cos()
}

/// Uniform above 0, up to 1.
fn positive(rng: &mut StdRng) -> f64 {
    1.0 - rng.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_parse_and_print() {
        for text in ["field", "iid", "dirichlet:0.3"] {
            assert_eq!(text.parse::<Partition>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "dirichlet",
            "dirichlet:0",
            "dirichlet:-1",
            "dirichlet:x",
            "dirichlet:inf",
        ] {
            assert!(bad.parse::<Partition>().is_err(), "{bad:?} was taken");
        }
    }

    /// Mean and variance of a component are p and p(1-p)/(alpha+1).
    #[test]
    fn mixtures_have_the_mean_and_the_variance_of_the_distribution() {
        let mut rng = rng(1);
        let prior = [3.0, 1.0];
        for alpha in [0.1, 1.0, 30.0] {
            let drawn: Vec<f64> = (0..20_000)
                .map(|_| dirichlet(&prior, alpha, &mut rng)[1])
                .collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let variance = variance / drawn.len() as f64;
            let expected = 0.25 * 0.75 / (alpha + 1.0);
            assert!((mean - 0.25).abs() < 0.02, "{alpha}: mean {mean}");
            assert!(
                (variance / expected - 1.0).abs() < 0.08,
                "{alpha}: variance {variance}"
            );
        }
    }

    /// The share of each member's most frequent value, on average.
    fn skew(alpha: f64) -> f64 {
        let mut rng = rng(2);
        let pools: Vec<Vec<usize>> = (0..10).map(|value| vec![value; 100]).collect();
        let prior = vec![1.0; 10];
        let mixtures: Vec<_> = (0..20)
            .map(|_| dirichlet(&prior, alpha, &mut rng))
            .collect();
        let hands = draw(pools, &mixtures, &mut rng);
        assert!(hands.iter().all(|hand| hand.len() == 50));
        let most = |hand: &Vec<usize>| {
            let count = |value| hand.iter().filter(|one| **one == value).count();
            (0..10).map(count).max().unwrap_or(0) as f64 / 50.0
        };
        hands.iter().map(most).sum::<f64>() / 20.0
    }

    #[test]
    fn a_small_concentration_is_skewed_and_a_large_one_is_not() {
        let (small, middle, large) = (skew(0.1), skew(5.0), skew(1e6));
        assert!(
            small > 0.6 && middle < small && large < 0.25,
            "{small} {middle} {large}"
        );
    }

    fn groups(each: usize) -> BTreeMap<String, Dataset> {
        let lines = |value: &str| {
            (0..each).fold(String::new(), |text, one| {
                text + &format!("{{\"instruction\":\"{value} {one}\",\"output\":\"{one}\"}}\n")
            })
        };
        let dataset = |value: &str| Dataset::from_lines(lines(value).as_bytes(), value).unwrap();
        ["a", "b"]
            .map(|value| (value.to_owned(), dataset(value)))
            .into()
    }

    #[test]
    fn all_records_are_dealt_once_and_the_same_for_the_same_seed() {
        let held_out = HeldOut::share(0.2).unwrap();
        let deal = |partition, seed| deal(groups(100), partition, 9, held_out, seed).unwrap();
        for partition in [Partition::Iid, Partition::Dirichlet(0.2)] {
            let shares = deal(partition, 3);
            assert_eq!(shares.len(), 9);
            let mut digests: Vec<_> = shares
                .iter()
                .flat_map(|(training, held)| training.records().iter().chain(held.records()))
                .map(Record::digest)
                .collect();
            digests.sort_by_key(|digest| *digest.as_bytes());
            digests.dedup();
            assert_eq!(digests.len(), 200);
            assert!(shares == deal(partition, 3));
            assert!(shares != deal(partition, 4));
        }
    }

    #[test]
    fn too_few_records_are_refused() {
        let held_out = HeldOut::share(0.2).unwrap();
        let error = deal(groups(20), Partition::Iid, 9, held_out, 1).unwrap_err();
        assert!(error.to_string().contains("9 members"), "{error}");
    }
}
