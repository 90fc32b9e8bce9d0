//! A frozen adapter beside the one that is trained, with a learned weight for each projection: FedALT
//! (Bian et al., arXiv:2503.11880), with a weight of the module in place of one of the input.

use burn::tensor::Tensor;
use fedlora_adapter::{Adapter, Factor};
use fedlora_model::{Llama, Lora, LoraError, Passes};

use crate::step::error::TrainError;

/// How many times faster the weights learn than the factors. There are few of them, each for a whole
/// projection; LoRA+ (Hayou et al., ICML 2024) has as much between B and A.
const SPEED: f32 = 16.0;

/// An adapter that stays as it is beside a trained one.
#[derive(Clone, PartialEq)]
pub struct Beside {
    /// The frozen adapter, of the trained one's configuration.
    pub adapter: Adapter,
    /// Its weight on each projection when the training begins, in the layout's order.
    pub weights: Vec<f32>,
}

impl Beside {
    /// A frozen adapter that does nothing yet: all weights are 0.
    pub fn new(adapter: Adapter) -> Self {
        Self {
            weights: vec![0.0; adapter.projections()],
            adapter,
        }
    }

    /// A trained adapter with the frozen one at these weights, as one of twice the rank.
    ///
    /// # Errors
    /// [`TrainError::Beside`] where they do not fit together.
    pub fn whole(&self, trained: &Adapter, weights: &[f32]) -> Result<Adapter, TrainError> {
        let whole = trained.beside(&self.adapter, weights);
        whole.map_err(|_| TrainError::Beside)
    }
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Beside").field(&self.adapter).finish()
    }
}

/// The frozen adapter on a device.
pub(crate) struct Frozen<B: Passes> {
    lora: Lora<B>,
    /// B of each projection, in the layout's order.
    outer: Vec<Tensor<B, 2>>,
}

impl<B: Passes> Frozen<B> {
    /// Copies a frozen adapter to the model's device; its weights, `[1, 1]` each and divided by
    /// [`SPEED`], become parameters.
    pub(crate) fn place(
        beside: &Beside,
        model: &Llama<B>,
    ) -> Result<(Self, Vec<Tensor<B, 2>>), LoraError> {
        let device = model.device();
        let mut outer = Vec::new();
        let lora = Lora::from_adapter(&beside.adapter, model.config(), &device)?;
        let lora = lora.map(|factor, tensor: Tensor<B, 2>| {
            if factor == Factor::B {
                outer.push(tensor.clone());
            }
            tensor
        });
        let weight = |weight: &f32| Tensor::from_floats([[*weight / SPEED]], &device);
        let weights = beside.weights.iter().map(weight).collect();
        Ok((Self { lora, outer }, weights))
    }

    /// The weights that parameters stand for.
    pub(crate) fn weights(parameters: Vec<f32>) -> Vec<f32> {
        parameters.into_iter().map(|one| one * SPEED).collect()
    }

    /// How many projections it adapts, and so how many weights it has.
    pub(crate) fn len(&self) -> usize {
        self.outer.len()
    }

    /// The trained factors, in layout order, beside the frozen ones times their weights: an adapter
    /// of twice the rank, `s [B, w B'] [A; A']`.
    pub(crate) fn joined(&self, parameters: &[Tensor<B, 2>]) -> Lora<B> {
        let (own, weights) = parameters.split_at(2 * self.len());
        let (mut own, mut weights) = (own.iter(), weights.iter());
        self.lora.map(|factor, frozen| {
            let Some(trained) = own.next().cloned() else {
                return frozen;
            };
            match (factor, weights.as_slice()) {
                (Factor::A, _) => Tensor::cat(vec![trained, frozen], 0),
                (Factor::B, [weight, ..]) => {
                    weights.next();
                    let weight = weight.clone().mul_scalar(SPEED);
                    Tensor::cat(vec![trained, frozen * weight], 1)
                }
                (Factor::B, []) => trained,
            }
        })
    }

    /// The gradients of [`joined`](Self::joined)'s parameters, from those of the factors that it
    /// gives: `dw` is the sum of `d(w B') * B'`.
    pub(crate) fn split(&self, gradients: Vec<Tensor<B, 2>>) -> Vec<Tensor<B, 2>> {
        let mut weights = Vec::with_capacity(self.len());
        let mut own: Vec<_> = gradients
            .into_iter()
            .enumerate()
            .map(|(place, gradient)| {
                let [rows, columns] = gradient.dims();
                let Some(frozen) = self.outer.get(place / 2).filter(|_| place % 2 == 1) else {
                    return gradient.slice([0..rows / 2, 0..columns]);
                };
                let of_frozen = gradient.clone().slice([0..rows, columns / 2..columns]);
                let weight = (of_frozen * frozen.clone()).sum();
                weights.push(weight.mul_scalar(SPEED).reshape([1, 1]));
                gradient.slice([0..rows, 0..columns / 2])
            })
            .collect();
        own.append(&mut weights);
        own
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use fedlora_adapter::{Factors, LoraConfig, Target};
    use fedlora_model::{ActivationCheckpointing, Batch, SplitMix, loss_and_gradients};

    use super::*;
    use crate::step::model_trainer::ModelTrainer;
    use crate::step::options::{Batches, LearningRate, TrainOption, TrainOptions};
    use crate::step::trainer::StepBackend;
    use crate::tests::{engine, examples, weights};

    const STEPS: usize = 6;

    fn model() -> Llama<Flex> {
        Llama::new(&weights(), &Default::default()).unwrap()
    }

    /// An adapter whose factors are both far from 0.
    fn adapter(seed: u64, dropout: f64) -> Adapter {
        let config = LoraConfig::new(4, 8.0, dropout, [Target::Q, Target::Down]).unwrap();
        let layout = engine().adapter_layout(&config).unwrap();
        let mut random = SplitMix::new(seed, 0);
        let values = (0..layout.len())
            .map(|_| random.below(2001) as f32 / 1e4 - 0.1)
            .collect();
        Adapter::new(config, layout, values).unwrap()
    }

    fn beside(weight: f32) -> Beside {
        let beside = Beside::new(adapter(2, 0.0));
        Beside {
            weights: vec![weight; beside.weights.len()],
            ..beside
        }
    }

    fn options(decay: f64) -> TrainOptions {
        TrainOptions {
            batches: Batches::Continuous {
                batch_size: TrainOption::BatchSize.count(4).unwrap(),
                shuffle: true,
                steps: TrainOption::Steps.count(STEPS).unwrap(),
            },
            learning_rate: LearningRate::new(0.01).unwrap(),
            weight_decay: crate::step::options::WeightDecay::new(decay).unwrap(),
            ..TrainOptions::default()
        }
    }

    fn loss(adapter: &Adapter) -> f64 {
        engine().evaluate(Some(adapter), &examples()).unwrap().loss
    }

    /// The weights' gradients against differences of the loss, and the trained factors' against those
    /// of an ordinary adapter of both.
    #[test]
    fn gradients_are_those_of_the_whole() {
        let (model, examples) = (model(), examples());
        let (trained, beside) = (adapter(1, 0.0), beside(0.5));
        let (frozen, weights) = Frozen::place(&beside, &model).unwrap();
        let device = model.device();
        let mut parameters = Vec::new();
        Lora::<Flex>::from_adapter(&trained, model.config(), &device)
            .unwrap()
            .map(|_, tensor: Tensor<Flex, 2>| {
                parameters.push(tensor.clone());
                tensor
            });
        parameters.extend(weights);
        let lora = frozen.joined(&parameters);
        let batch = Batch::new(examples.iter(), 32);
        let off = ActivationCheckpointing::Off;
        let found = loss_and_gradients(&model, &lora, Factors::Both, &mut None, &batch, off);
        let split = frozen.split(found.factors);
        assert_eq!(split.len(), parameters.len());
        for (gradient, parameter) in split.iter().zip(&parameters) {
            assert_eq!(gradient.dims(), parameter.dims());
        }
        let targets = batch.targets().len() as f64;
        let single = |tensor: &Tensor<Flex, 2>, place: usize| -> f64 {
            let values: Vec<f64> = tensor.clone().into_data().iter::<f64>().collect();
            values[place] / targets
        };
        // A weight on the second projection of the first block.
        let step = 0.05;
        let at = |change: f32| {
            let mut weights = beside.weights.clone();
            weights[1] += change;
            loss(&beside.whole(&trained, &weights).unwrap())
        };
        let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
        let got = single(&split[2 * beside.weights.len() + 1], 0) / f64::from(SPEED);
        assert!(
            (got - slope).abs() < 0.02 * slope.abs(),
            "{got} for {slope}"
        );
        // The sixth element of its B, which has rows of 4, among those of the trained adapter.
        let at = |change: f32| {
            let mut values = trained.values().to_vec();
            let place = trained.layout().places_of(Factors::B).nth(16 * 4 + 5);
            values[place.unwrap()] += change;
            let changed = Adapter::new(trained.config().clone(), trained.layout().clone(), values);
            loss(&beside.whole(&changed.unwrap(), &beside.weights).unwrap())
        };
        let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
        let got = single(&split[3], 5);
        assert!(
            (got - slope).abs() < 0.02 * slope.abs(),
            "{got} for {slope}"
        );
    }

    #[test]
    fn without_a_weight_or_an_effect_training_is_as_alone() {
        let (model, examples, trained) = (model(), examples(), adapter(1, 0.1));
        let options = options(0.01);
        let values = |beside: Option<&Beside>| {
            let from = (&trained, Factors::Both, beside);
            let mut trainer = ModelTrainer::new(&model, from, &examples, &options).unwrap();
            for _ in 0..STEPS {
                trainer.step().unwrap();
            }
            (trainer.values(), trainer.weights())
        };
        // B is zero.
        let nothing = Beside::new(
            engine()
                .init_adapter(trained.config(), 3)
                .expect("the configuration fits"),
        );
        let (alone, none) = values(None);
        let (with, weights) = values(Some(&nothing));
        assert!(none.is_empty());
        assert_eq!(weights, vec![0.0; trained.projections()]);
        let furthest = alone.iter().zip(&with);
        let furthest = furthest.map(|(one, other)| (one - other).abs());
        assert!(furthest.fold(0.0, f32::max) < 1e-4);
    }

    /// The weights learn with the factors, do not decay, and go on from a saved state.
    #[test]
    fn weights_are_trained_and_restored() {
        let (model, examples, trained) = (model(), examples(), adapter(1, 0.0));
        let beside = beside(1.0);
        let options = options(0.5);
        let from = (&trained, Factors::Both, Some(&beside));
        let new = || ModelTrainer::new(&model, from, &examples, &options).unwrap();
        let mut whole = new();
        whole.step().unwrap();
        // One step of AdamW moves by the rate, 16 times over; decay would take half a percent more.
        let moved: Vec<f32> = whole
            .weights()
            .iter()
            .map(|one| (one - 1.0).abs())
            .collect();
        assert!(
            moved.iter().all(|one| (one - 0.16).abs() < 1e-3),
            "{moved:?}"
        );
        let mut resumed = new();
        resumed.restore(&whole.state()).unwrap();
        while whole.done() < STEPS {
            whole.step().unwrap();
            resumed.step().unwrap();
        }
        assert_eq!(whole.state(), resumed.state());
        let joined = |values: &[f32], weights: &[f32]| {
            let own = whole.adapter_with(values).unwrap();
            loss(&beside.whole(&own, weights).unwrap())
        };
        let after = joined(&whole.values(), &whole.weights());
        assert!(after < joined(trained.values(), &beside.weights));
    }

    #[test]
    fn a_frozen_adapter_of_another_kind_or_beside_one_factor_is_refused() {
        let (model, examples, trained) = (model(), examples(), adapter(1, 0.0));
        let refused = |factors, beside: &Beside| {
            let from = (&trained, factors, Some(beside));
            let refused = ModelTrainer::new(&model, from, &examples, &options(0.0));
            matches!(refused, Err(TrainError::Beside))
        };
        assert!(refused(Factors::B, &beside(0.0)));
        assert!(refused(Factors::Both, &Beside::new(adapter(1, 0.5))));
        let short = Beside {
            weights: vec![0.0],
            ..beside(0.0)
        };
        assert!(refused(Factors::Both, &short));
        assert!(!refused(Factors::Both, &beside(0.0)));
    }
}
