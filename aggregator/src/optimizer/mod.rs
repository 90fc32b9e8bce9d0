//! The server's optimizer: it makes the step of the global adapter out of a round's mean. Part of
//! step 10 of the round. Owns the moments, one or two for each value of the whole adapter; a round
//! advances those of the factors that it trained.
//!
//! With d the mean, v and m the moments, mu the momentum and eta the rate, value by value:
//!
//! | optimizer | moments | step |
//! |---|---|---|
//! | `fedavg` | none | eta d |
//! | `fedavgm` | v = mu v + d | eta v |
//! | `nesterov` | v = mu v + d | eta (d + mu v) |
//! | `fedadam` | m = b1 m + (1 - b1) d, v = b2 v + (1 - b2) d^2 | eta m / (sqrt(v) + tau) |
//! | `fedyogi` | m likewise, v = v - (1 - b2) d^2 sign(v - d^2) | eta m / (sqrt(v) + tau) |
//!
//! Sources: McMahan et al., AISTATS 2017 (`fedavg`); Hsu, Qi, Brown, arXiv 1909.06335 (`fedavgm`);
//! DiLoCo, arXiv 2311.08105, as PyTorch's SGD has it (`nesterov`); Reddi et al., "Adaptive Federated
//! Optimization", ICLR 2021, algorithm 2 (the others).
//!
//! All moments begin at 0, but the second one of the adaptive rules at tau^2, the least that
//! algorithm 2 allows. As there, no moment is corrected for its bias.
//!
//! A moment is an f32. What makes a new one, or a step, of it is f64 arithmetic in the order of the
//! formula, rounded once. Addition, product, quotient and root of IEEE 754 are exact to the last
//! bit, so every machine comes to the same.

mod state;

use fedlora_adapter::{Factors, Layout};
use fedlora_protocol::fixed::can_be_mean_norm;
use fedlora_protocol::plan::{SecondMoment, ServerRule, ServerSettings};

pub use state::{StateError, StateOf};

/// An optimizer with its moments, after some rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerOptimizer {
    layout: Layout,
    rate: f64,
    /// The largest L2 norm of a step, in clips.
    largest_step: f64,
    rule: Rule,
}

/// A rule with its moments, flat over the whole adapter.
#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Mean,
    Momentum {
        momentum: f64,
        nesterov: bool,
        velocity: Vec<f32>,
    },
    Adaptive {
        beta1: f64,
        beta2: f64,
        tau: f64,
        kind: SecondMoment,
        first: Vec<f32>,
        second: Vec<f32>,
    },
}

/// A round's step, and the optimizer after it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerStep {
    /// What is added to the trained part of the adapter.
    pub values: Vec<f32>,
    /// The optimizer with its moments after the round.
    pub after: ServerOptimizer,
    /// Where the step was longer than the plan allows: how long. It was scaled down.
    pub scaled: Option<ScaledStep>,
}

/// A step that was scaled down. Its moments are not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaledStep {
    /// The L2 norm that it had.
    pub from: f64,
    /// The L2 norm that it has: the plan's largest step times the clip.
    pub to: f64,
}

impl ServerOptimizer {
    /// The optimizer before the first round, for an adapter of this layout.
    pub fn new(settings: ServerSettings, layout: Layout) -> Self {
        let zeros = || vec![0.0; layout.len()];
        let rule = match settings.rule {
            ServerRule::Mean => Rule::Mean,
            ServerRule::Momentum { momentum, nesterov } => Rule::Momentum {
                momentum,
                nesterov,
                velocity: zeros(),
            },
            ServerRule::Adaptive {
                beta1,
                beta2,
                tau,
                second,
            } => Rule::Adaptive {
                beta1,
                beta2,
                tau,
                kind: second,
                first: zeros(),
                second: vec![(tau * tau) as f32; layout.len()],
            },
        };
        Self {
            layout,
            rate: settings.rate.into(),
            largest_step: settings.largest_step.into(),
            rule,
        }
    }

    /// The step of a round that trained `factors` under this clip, and came to `mean`: as many
    /// values as these factors have, in the layout's order. A step above the plan's largest, with
    /// the slack that members allow for rounding, is scaled down to it.
    pub fn step(&self, factors: Factors, mean: Vec<f32>, clip: f32) -> ServerStep {
        let mut after = self.clone();
        let mut values = mean;
        // The moments of cores are the first ones: there are no more cores than values of B.
        let cores = (factors == Factors::Core).then_some(0..values.len());
        let places = cores
            .into_iter()
            .flatten()
            .chain(self.layout.places_of(factors));
        match &mut after.rule {
            Rule::Mean => {
                for value in &mut values {
                    *value = self.rated((*value).into());
                }
            }
            Rule::Momentum {
                momentum,
                nesterov,
                velocity,
            } => {
                for (value, place) in values.iter_mut().zip(places) {
                    let d = f64::from(*value);
                    let kept = &mut velocity[place];
                    *kept = (*momentum * f64::from(*kept) + d) as f32;
                    *value = self.rated(if *nesterov {
                        d + *momentum * f64::from(*kept)
                    } else {
                        f64::from(*kept)
                    });
                }
            }
            Rule::Adaptive {
                beta1,
                beta2,
                tau,
                kind,
                first,
                second,
            } => {
                for (value, place) in values.iter_mut().zip(places) {
                    let d = f64::from(*value);
                    let (m, v) = (&mut first[place], &mut second[place]);
                    *m = (*beta1 * f64::from(*m) + (1.0 - *beta1) * d) as f32;
                    *v = advanced(*kind, *beta2, (*v).into(), d * d) as f32;
                    *value = self.rated(f64::from(*m) / (f64::from(*v).sqrt() + *tau));
                }
            }
        }
        let scaled = scale_down(&mut values, self.largest_step * f64::from(clip));
        ServerStep {
            values,
            after,
            scaled,
        }
    }

    fn rated(&self, direction: f64) -> f32 {
        (self.rate * direction) as f32
    }
}

/// The second moment after a round.
fn advanced(kind: SecondMoment, beta2: f64, v: f64, square: f64) -> f64 {
    let part = (1.0 - beta2) * square;
    match kind {
        SecondMoment::Adam => beta2 * v + part,
        SecondMoment::Yogi if v > square => v - part,
        SecondMoment::Yogi if v < square => v + part,
        SecondMoment::Yogi => v,
    }
}

/// Scales values that are longer than `most` down to it.
fn scale_down(values: &mut [f32], most: f64) -> Option<ScaledStep> {
    // One value after another: a sum in another order has other bits.
    let mut squares = 0.0;
    for &value in &*values {
        squares += f64::from(value) * f64::from(value);
    }
    let from = f64::sqrt(squares);
    if can_be_mean_norm(from, most) {
        return None;
    }
    let scale = most / from;
    for value in values {
        *value = (f64::from(*value) * scale) as f32;
    }
    Some(ScaledStep { from, to: most })
}

#[cfg(test)]
mod tests;
