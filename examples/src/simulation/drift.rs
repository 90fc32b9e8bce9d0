//! How far averaging both factors is from averaging what the members changed.
//!
//! FedAvg of A and B gives `(B + mean b) (A + mean a)`, where the mean of the members' adapters is
//! `mean (B + b) (A + a)`: the two differ by `mean (b - mean b) (a - mean a)`, which is nothing where
//! one factor is frozen (Sun et al., "Improving LoRA in privacy-preserving federated learning", ICLR
//! 2024). Its Frobenius norm is estimated from products with a few random vectors (`|M|^2` is the mean
//! of `|M z|^2` for `z` of independent signs, Hutchinson 1989), so that no more is held than a few
//! sums, however many members there are. Only a simulation can: nobody else sees single changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fedlora_adapter::Adapter;
use fedlora_model::SplitMix;
use fedlora_protocol::ids::RoundNumber;

/// Random vectors for each pair of factors.
const PROBES: usize = 8;

/// The sums of the rounds that are going on. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Drift(Arc<Mutex<Rounds>>);

#[derive(Debug, Default)]
struct Rounds {
    going_on: HashMap<RoundNumber, Sums>,
    done: Option<RoundNumber>,
}

impl Drift {
    /// Adds a member's change of both factors of `adapter`, laid out as these are.
    pub(super) fn add(&self, round: RoundNumber, weight: f64, adapter: &Adapter, delta: &[f32]) {
        let mut rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A member that was cut off may end its training when the round is over.
        if rounds.done.is_some_and(|done| round <= done) {
            return;
        }
        let sums = rounds.going_on.entry(round);
        sums.or_insert_with(|| Sums::new(adapter, PROBES))
            .add(weight, delta);
    }

    /// The drift of a round that is over, relative to the mean change; `None` where one factor
    /// travelled.
    pub(super) fn take(&self, round: RoundNumber) -> Option<f64> {
        let mut rounds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rounds.done = rounds.done.max(Some(round));
        let sums = rounds.going_on.remove(&round)?;
        rounds.going_on.retain(|&other, _| other > round);
        sums.drift()
    }
}

/// Sums over the members of a round.
#[derive(Debug)]
struct Sums {
    weight: f64,
    adapter: Adapter,
    pairs: Vec<Pair>,
}

/// Of one pair of factors, `A` of `[rank, inputs]` and `B` of `[outputs, rank]`.
#[derive(Debug)]
struct Pair {
    size: [usize; 3],
    /// Where the values of A and of B begin.
    places: [usize; 2],
    /// The random vectors, `[probes, inputs]`.
    probes: Vec<f64>,
    /// Of `a z`, `[probes, rank]`.
    narrow: Vec<f64>,
    /// Of `b`, `[outputs, rank]`.
    wide: Vec<f64>,
    /// Of `b a z`, `[probes, outputs]`.
    products: Vec<f64>,
}

impl Sums {
    fn new(adapter: &Adapter, probes: usize) -> Self {
        let tensors: Vec<_> = adapter.layout().iter().collect();
        let pairs = tensors.chunks_exact(2).enumerate();
        let pairs = pairs.map(|(number, pair)| {
            let (rank, inputs) = (pair[0].0.shape[0], pair[0].0.shape[1]);
            let outputs = pair[1].0.shape[0];
            let mut random = SplitMix::new(number as u64, 0);
            let mut sign = || if random.below(2) == 0 { -1.0 } else { 1.0 };
            Pair {
                size: [rank, inputs, outputs],
                places: [pair[0].1.start, pair[1].1.start],
                probes: (0..probes * inputs).map(|_| sign()).collect(),
                narrow: vec![0.0; probes * rank],
                wide: vec![0.0; outputs * rank],
                products: vec![0.0; probes * outputs],
            }
        });
        Self {
            weight: 0.0,
            pairs: pairs.collect(),
            adapter: adapter.clone(),
        }
    }

    fn add(&mut self, weight: f64, delta: &[f32]) {
        self.weight += weight;
        for pair in &mut self.pairs {
            let (a, b) = pair.of(delta);
            let narrow = pair.narrow(&a);
            let products = pair.wide(&b, &narrow);
            add(&mut pair.narrow, weight, &narrow);
            add(&mut pair.products, weight, &products);
            add(&mut pair.wide, weight, &b);
        }
    }

    fn drift(&self) -> Option<f64> {
        let (mut difference, mut change) = (0.0, 0.0);
        for pair in &self.pairs {
            let mean = |sum: &[f64]| -> Vec<f64> { sum.iter().map(|x| x / self.weight).collect() };
            let (narrow, wide) = (mean(&pair.narrow), mean(&pair.wide));
            let products = mean(&pair.products);
            let (a, b) = pair.of(self.adapter.values());
            let of_means = pair.wide(&wide, &narrow);
            let by_a = pair.wide(&b, &narrow);
            let by_b = pair.wide(&wide, &pair.narrow(&a));
            for (at, product) in products.iter().enumerate() {
                difference += (product - of_means[at]).powi(2);
                change += (product + by_a[at] + by_b[at]).powi(2);
            }
        }
        (change > 0.0).then(|| (difference / change).sqrt())
    }
}

fn add(sum: &mut [f64], weight: f64, values: &[f64]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

impl Pair {
    /// The values of A and B among those of all tensors.
    fn of(&self, values: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let [rank, inputs, outputs] = self.size;
        let [a, b] = self.places;
        let part = |from: usize, count: usize| {
            let values = values[from..from + count].iter();
            values.map(|&value| f64::from(value)).collect()
        };
        (part(a, rank * inputs), part(b, outputs * rank))
    }

    /// `a z` for each random vector, `[probes, rank]`.
    fn narrow(&self, a: &[f64]) -> Vec<f64> {
        times(a, &self.probes, self.size[1])
    }

    /// `b v` for each `v` of `[probes, rank]`, `[probes, outputs]`.
    fn wide(&self, b: &[f64], narrow: &[f64]) -> Vec<f64> {
        times(b, narrow, self.size[0])
    }
}

/// `matrix v` for each `v` of `vectors`, all in rows of `width`.
fn times(matrix: &[f64], vectors: &[f64], width: usize) -> Vec<f64> {
    let products = vectors
        .chunks(width)
        .flat_map(|vector| matrix.chunks(width).map(move |row| dot(row, vector)));
    products.collect()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedlora_adapter::{LoraConfig, Target};

    const SIZE: (usize, usize) = (9, 7);

    fn adapter(seed: u64) -> Adapter {
        let config = LoraConfig::new(3, 6.0, 0.0, [Target::Q, Target::V]).unwrap();
        let layout = Adapter::layout_for(&config, 2, |_, _| SIZE).unwrap();
        let values = numbers(layout.len(), seed);
        Adapter::new(config, layout, values).unwrap()
    }

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix::new(seed, 1);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    /// The changes of the weights by dense products.
    fn changes(adapter: &Adapter, delta: &[f32]) -> Vec<f64> {
        let sum: Vec<f64> = (adapter.values().iter().zip(delta))
            .map(|(value, delta)| f64::from(*value) + f64::from(*delta))
            .collect();
        let before: Vec<f64> = adapter.values().iter().map(|&x| f64::from(x)).collect();
        let tensors: Vec<_> = adapter.layout().iter().collect();
        let product = |values: &[f64]| -> Vec<f64> {
            let pairs = tensors.chunks(2).flat_map(|pair| {
                let (a, b) = (&values[pair[0].1.clone()], &values[pair[1].1.clone()]);
                let (rank, inputs) = (pair[0].0.shape[0], pair[0].0.shape[1]);
                let cell = |row: usize, column: usize| -> f64 {
                    (0..rank)
                        .map(|at| b[row * rank + at] * a[at * inputs + column])
                        .sum()
                };
                let cells = (0..pair[1].0.shape[0])
                    .flat_map(|row| (0..inputs).map(move |column| (row, column)));
                cells
                    .map(|(row, column)| cell(row, column))
                    .collect::<Vec<_>>()
            });
            pairs.collect()
        };
        let (after, before) = (product(&sum), product(&before));
        after.iter().zip(before).map(|(a, b)| a - b).collect()
    }

    fn norm(values: impl Iterator<Item = f64>) -> f64 {
        values.map(|x| x * x).sum::<f64>().sqrt()
    }

    #[test]
    fn the_estimate_is_near_the_drift_of_dense_products() {
        let adapter = adapter(1);
        let members: Vec<(f64, Vec<f32>)> = (0..4)
            .map(|member| {
                (
                    f64::from(1 << member),
                    numbers(adapter.values().len(), 10 + member),
                )
            })
            .collect();
        let mut sums = Sums::new(&adapter, 400);
        let total: f64 = members.iter().map(|(weight, _)| weight).sum();
        let count = adapter.values().len();
        let (mut mean_delta, mut exact) = (vec![0.0; count], Vec::new());
        for (weight, delta) in &members {
            sums.add(*weight, delta);
            for (sum, value) in mean_delta.iter_mut().zip(delta) {
                *sum += (weight / total) * f64::from(*value);
            }
            let change = changes(&adapter, delta);
            exact.resize(change.len(), 0.0);
            add(&mut exact, weight / total, &change);
        }
        let mean_delta: Vec<f32> = mean_delta.into_iter().map(|x| x as f32).collect();
        let averaged = changes(&adapter, &mean_delta);
        let expected =
            norm(exact.iter().zip(averaged).map(|(a, b)| a - b)) / norm(exact.iter().copied());
        let got = sums.drift().unwrap();
        assert!((got / expected - 1.0).abs() < 0.1, "{got} for {expected}");
    }

    #[test]
    fn there_is_none_where_members_agree_or_one_factor_is_frozen() {
        let adapter = adapter(2);
        let delta = numbers(adapter.values().len(), 3);
        let drift = Drift::default();
        for weight in [1.0, 4.0] {
            drift.add(RoundNumber(1), weight, &adapter, &delta);
        }
        assert!(drift.take(RoundNumber(1)).unwrap() < 1e-6);
        for seed in [4, 5] {
            let mut delta = numbers(adapter.values().len(), seed);
            for (spec, place) in adapter.layout().iter() {
                if spec.name.contains("lora_A") {
                    delta[place].fill(0.0);
                }
            }
            drift.add(RoundNumber(2), 1.0, &adapter, &delta);
        }
        assert!(drift.take(RoundNumber(2)).unwrap() < 1e-6);
    }

    #[test]
    fn a_round_that_is_over_takes_no_more() {
        let (adapter, drift) = (adapter(2), Drift::default());
        let delta = numbers(adapter.values().len(), 3);
        assert_eq!(drift.take(RoundNumber(4)), None);
        for round in [3, 4, 5] {
            drift.add(RoundNumber(round), 1.0, &adapter, &delta);
        }
        assert_eq!(drift.take(RoundNumber(4)), None);
        assert!(drift.take(RoundNumber(5)).is_some());
        assert!(drift.0.lock().unwrap().going_on.is_empty());
    }
}
