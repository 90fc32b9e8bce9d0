//! FedProx's proximal term, which keeps a training near the adapter that it began with.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::step::options::Proximal;

/// The term `mu / 2 * |w - w0|^2` of the objective, w0 the trained factors' values at the beginning
/// (Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, section 3.2).
#[derive(Debug)]
pub(crate) struct Anchor<B: Backend> {
    /// mu of each parameter, times the square of what it is multiplied by in the adapter: the distance
    /// is one of factors.
    mu: Vec<f64>,
    /// w0, one tensor for each parameter.
    start: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Anchor<B> {
    /// The term around `parameters`, each multiplied by one of `scales` in the adapter; `None` for a mu
    /// of 0, which adds nothing.
    pub(crate) fn at(
        parameters: &[Tensor<B, 2>],
        scales: impl Iterator<Item = f64>,
        proximal: Proximal,
    ) -> Option<Self> {
        let mu = proximal.get();
        (mu > 0.0).then(|| Self {
            mu: scales.map(|scale| mu * scale * scale).collect(),
            start: parameters.to_vec(),
        })
    }

    /// Adds the term's gradient, `mu (w - w0)`, to those of the loss.
    pub(crate) fn pull(&self, gradients: &mut [Option<Tensor<B, 2>>], parameters: &[Tensor<B, 2>]) {
        let places = gradients.iter_mut().zip(parameters);
        for (((slot, now), start), mu) in places.zip(&self.start).zip(&self.mu) {
            let pull = (now.clone() - start.clone()).mul_scalar(*mu);
            *slot = slot.take().map(|gradient| gradient + pull);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use fedlora_adapter::{Adapter, Factors, LoraConfig, Target};
    use fedlora_model::{
        ActivationCheckpointing, Batch, Example, Llama, Lora, SplitMix, loss_and_gradients,
    };

    use super::*;
    use crate::step::model_trainer::ModelTrainer;
    use crate::step::optimizer::AdamWConfig;
    use crate::step::options::{Batches, ClipNorm, LearningRate, TrainOption, TrainOptions};
    use crate::step::trainer::StepBackend;
    use crate::tests::{examples, weights};

    const STEPS: usize = 4;
    const RATE: f64 = 0.01;

    fn options(mu: f64, clip: Option<f64>) -> TrainOptions {
        TrainOptions {
            batches: Batches::Continuous {
                // All examples in each step, so that the order is no matter.
                batch_size: TrainOption::BatchSize.count(examples().len()).unwrap(),
                shuffle: false,
                steps: TrainOption::Steps.count(STEPS).unwrap(),
            },
            learning_rate: LearningRate::new(RATE).unwrap(),
            decay: crate::step::decay::Decay::Constant,
            clip_norm: clip.map(|norm| ClipNorm::new(norm).unwrap()),
            proximal: Proximal::new(mu).unwrap(),
            ..TrainOptions::default()
        }
    }

    fn model() -> Llama<Flex> {
        Llama::new(&weights(), &Default::default()).unwrap()
    }

    /// An adapter whose factors are both far from 0.
    fn start(model: &Llama<Flex>) -> Adapter {
        let config = LoraConfig::new(4, 8.0, 0.0, Target::ALL).unwrap();
        let layout = Adapter::layout_for(&config, 2, |_, target| model.config().projection(target));
        let layout = layout.unwrap();
        let mut random = SplitMix::new(8, 0);
        let values = (0..layout.len())
            .map(|_| random.below(2001) as f32 / 1e4 - 0.1)
            .collect();
        Adapter::new(config, layout, values).unwrap()
    }

    fn trained(factors: Factors, options: &TrainOptions, steps: usize) -> Vec<f32> {
        let (model, examples) = (model(), examples());
        let mut trainer =
            ModelTrainer::new(&model, (&start(&model), factors, None), &examples, options).unwrap();
        for _ in 0..steps {
            trainer.step().unwrap();
        }
        trainer.values()
    }

    /// The loss's gradients by the values of `factors` in layout order.
    fn gradients(
        model: &Llama<Flex>,
        adapter: &Adapter,
        factors: Factors,
        examples: &[Example],
    ) -> Vec<f64> {
        let lora = Lora::from_adapter(adapter, model.config(), &model.device()).unwrap();
        let batch = Batch::new(examples.iter(), 32);
        let off = ActivationCheckpointing::Off;
        let found = loss_and_gradients(model, &lora, factors, &mut None, &batch, off);
        let scale = 1.0 / batch.targets().len() as f64;
        let values = found.factors.into_iter().flat_map(|one| {
            let values: Vec<f64> = one.into_data().iter::<f64>().collect();
            values
        });
        values.map(|value| value * scale).collect()
    }

    /// AdamW (Loshchilov and Hutter, 2019, algorithm 2) on the objective with the proximal term, by
    /// hand in f64.
    fn by_hand(factors: Factors, mu: f64, clip: Option<f64>) -> Vec<f64> {
        let (model, examples) = (model(), examples());
        let first = start(&model);
        let part = first.layout().subset(factors).unwrap();
        let anchor: Vec<f64> = first
            .select(&part)
            .unwrap()
            .iter()
            .map(|value| f64::from(*value))
            .collect();
        let AdamWConfig {
            beta1,
            beta2,
            eps,
            weight_decay,
        } = AdamWConfig::default();
        let options = options(0.0, None);
        let trainer =
            ModelTrainer::new(&model, (&first, factors, None), &examples, &options).unwrap();
        let mut values = anchor.clone();
        let (mut m, mut v) = (vec![0.0; values.len()], vec![0.0; values.len()]);
        for step in 1..=STEPS as i32 {
            let rounded: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            let adapter = trainer.adapter_with(&rounded).unwrap();
            let mut gradient = gradients(&model, &adapter, factors, &examples);
            for ((slot, now), start) in gradient.iter_mut().zip(&values).zip(&anchor) {
                *slot += mu * (now - start);
            }
            let norm = gradient.iter().map(|one| one * one).sum::<f64>().sqrt();
            let scale = clip.map_or(1.0, |clip| (clip / norm).min(1.0));
            for (index, gradient) in gradient.into_iter().enumerate() {
                let gradient = gradient * scale;
                m[index] = beta1 * m[index] + (1.0 - beta1) * gradient;
                v[index] = beta2 * v[index] + (1.0 - beta2) * gradient * gradient;
                let first = m[index] / (1.0 - beta1.powi(step));
                let second = v[index] / (1.0 - beta2.powi(step));
                values[index] *= 1.0 - RATE * weight_decay;
                values[index] -= RATE * first / (second.sqrt() + eps);
            }
        }
        values
    }

    fn furthest(values: &[f32], expected: &[f64]) -> f64 {
        assert_eq!(values.len(), expected.len());
        let gaps = values.iter().zip(expected);
        gaps.map(|(got, want)| (f64::from(*got) - want).abs())
            .fold(0.0, f64::max)
    }

    #[test]
    fn steps_are_adamws_on_the_objective_with_the_term() {
        for factors in [Factors::Both, Factors::A, Factors::B] {
            // A norm of 0.05 is clipped to in each step: the term is added before.
            for clip in [None, Some(0.05)] {
                let values = trained(factors, &options(1.0, clip), STEPS);
                let gap = furthest(&values, &by_hand(factors, 1.0, clip));
                let without = furthest(&values, &by_hand(factors, 0.0, clip));
                // A step is 0.01 long; the gradients are f32.
                assert!(gap < 2e-4, "{factors:?}, {clip:?}: {gap}");
                assert!(without > 10.0 * gap, "{factors:?}, {clip:?}: {without}");
            }
        }
    }

    #[test]
    fn the_first_step_begins_at_the_anchor_and_no_term_changes_no_bit() {
        let plain = TrainOptions {
            proximal: Proximal::default(),
            ..options(1.0, Some(1.0))
        };
        let bits = |mu, steps| -> Vec<u32> {
            let values = trained(Factors::Both, &options(mu, Some(1.0)), steps);
            values.into_iter().map(f32::to_bits).collect()
        };
        let without = |steps| -> Vec<u32> {
            let values = trained(Factors::Both, &plain, steps);
            values.into_iter().map(f32::to_bits).collect()
        };
        assert_eq!(bits(0.0, STEPS), without(STEPS));
        assert_eq!(bits(1.0, 1), without(1));
        assert_ne!(bits(1.0, 2), without(2));
    }

    /// Training that resumes from a state, as a member's does in each round, keeps to the adapter
    /// that it was given.
    #[test]
    fn a_restored_state_does_not_move_the_anchor() {
        let (model, examples) = (model(), examples());
        let options = options(1.0, None);
        let first = start(&model);
        let new = || {
            ModelTrainer::new(&model, (&first, Factors::Both, None), &examples, &options).unwrap()
        };
        let mut whole = new();
        whole.step().unwrap();
        whole.step().unwrap();
        let mut resumed = new();
        resumed.restore(&whole.state()).unwrap();
        whole.step().unwrap();
        resumed.step().unwrap();
        assert_eq!(whole.values(), resumed.values());
    }

    #[test]
    fn a_stronger_pull_ends_nearer() {
        let model = model();
        let first = start(&model).values().to_vec();
        let moved = |mu| {
            let values = trained(Factors::Both, &options(mu, None), STEPS);
            let gaps = values.iter().zip(&first);
            gaps.map(|(now, then)| f64::from(now - then).powi(2))
                .sum::<f64>()
        };
        assert!(moved(10.0) < moved(0.1) && moved(0.1) < moved(0.0));
    }
}
