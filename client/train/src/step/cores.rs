//! The cores of an adapter as a training's parameters: `B = B' + E R`, with R trained and A, B' and E
//! frozen. The parameter is `R / s`, with `s = sqrt(out / rank)`, and its gradient `s E^T dB`: a step
//! of AdamW, which moves each number by the learning rate, so moves B as far as a step of B itself
//! would, and the rates that suit B suit its core.

use burn::tensor::{Tensor, TensorData};
use fedlora_adapter::{Adapter, AdapterError, Factor, Layout};
use fedlora_model::{Llama, Lora, Passes};

/// What stays of each projection's B, on a device.
pub(crate) struct Cores<B: Passes> {
    /// E, `[out, rank]`.
    bases: Vec<Tensor<B, 2>>,
    /// B', what no R changes.
    rest: Vec<Tensor<B, 2>>,
    /// s.
    scales: Vec<f64>,
}

impl<B: Passes> Cores<B> {
    /// Copies bases and cores to the model's device. `outer` are the B of the projections and `part`
    /// the layout of the cores, which become the parameters.
    pub(crate) fn place(
        adapter: &Adapter,
        outer: Vec<Tensor<B, 2>>,
        part: &Layout,
        model: &Llama<B>,
    ) -> Result<(Self, Vec<Tensor<B, 2>>), AdapterError> {
        let device = model.device();
        let values = adapter.select(part)?;
        let scale = |outer: &Tensor<B, 2>| {
            let [outputs, rank] = outer.dims();
            (outputs as f64 / rank as f64).sqrt()
        };
        let scales: Vec<f64> = outer.iter().map(scale).collect();
        let cores: Vec<Tensor<B, 2>> = part
            .iter()
            .map(|(spec, range)| {
                let data = TensorData::new(values[range].to_vec(), spec.shape.clone());
                Tensor::from_data(data, &device)
            })
            .collect();
        let bases: Vec<Tensor<B, 2>> = adapter
            .core_bases()?
            .into_iter()
            .zip(&outer)
            .map(|(basis, outer)| Tensor::from_data(TensorData::new(basis, outer.dims()), &device))
            .collect();
        let moved = bases.iter().zip(&cores);
        let rest = outer
            .into_iter()
            .zip(moved)
            .map(|(outer, (basis, core))| outer - basis.clone().matmul(core.clone()))
            .collect();
        let parameters = cores.into_iter().zip(&scales);
        let parameters = parameters.map(|(core, scale)| core.div_scalar(*scale));
        let parameters = parameters.collect();
        let placed = Self {
            bases,
            rest,
            scales,
        };
        Ok((placed, parameters))
    }

    /// s of each projection.
    pub(crate) fn scales(&self) -> &[f64] {
        &self.scales
    }

    /// R of each projection.
    pub(crate) fn cores(&self, parameters: &[Tensor<B, 2>]) -> Vec<Tensor<B, 2>> {
        let scaled = parameters.iter().zip(&self.scales);
        scaled
            .map(|(parameter, scale)| parameter.clone().mul_scalar(*scale))
            .collect()
    }

    /// The adapter with these cores; `start` has the frozen factors.
    pub(crate) fn joined(&self, start: &Lora<B>, parameters: &[Tensor<B, 2>]) -> Lora<B> {
        let cores = self.cores(parameters);
        let mut places = self.bases.iter().zip(&self.rest).zip(&cores);
        start.map(|factor, tensor| match factor {
            Factor::A => tensor,
            Factor::B => match places.next() {
                Some(((basis, rest), core)) => rest.clone() + basis.clone().matmul(core.clone()),
                None => tensor,
            },
        })
    }

    /// The gradients of the cores, from those of B.
    pub(crate) fn split(&self, gradients: Vec<Tensor<B, 2>>) -> Vec<Tensor<B, 2>> {
        let places = self.bases.iter().zip(&self.scales);
        gradients
            .into_iter()
            .zip(places)
            .map(|(gradient, (basis, scale))| {
                let gradient = basis.clone().transpose().matmul(gradient);
                gradient.mul_scalar(*scale)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use fedlora_adapter::{Factors, LoraConfig, Target};
    use fedlora_model::{ActivationCheckpointing, Batch, loss_and_gradients};

    use super::*;
    use crate::step::model_trainer::ModelTrainer;
    use crate::step::options::{Batches, LearningRate, TrainOption, TrainOptions};
    use crate::step::trainer::StepBackend;
    use crate::tests::{engine, examples, weights};

    fn model() -> Llama<Flex> {
        Llama::new(&weights(), &Default::default()).unwrap()
    }

    /// An adapter whose cores have moved, and whose B has a part that no core reaches.
    fn adapter() -> (Adapter, Layout) {
        let config = LoraConfig::new(3, 6.0, 0.0, [Target::V, Target::Up]).unwrap();
        let mut adapter = engine().init_adapter(&config, 3).unwrap();
        let layout = adapter.layout().clone();
        for factors in [Factors::Core, Factors::B] {
            let part = layout.subset(factors).unwrap();
            let change = (0..part.len()).map(|place| 0.2 * (place as f32).sin());
            adapter.add(&part, &change.collect::<Vec<_>>()).unwrap();
        }
        let cores = layout.subset(Factors::Core).unwrap();
        (adapter, cores)
    }

    fn loss(adapter: &Adapter) -> f64 {
        engine().evaluate(Some(adapter), &examples()).unwrap().loss
    }

    #[test]
    fn gradients_are_those_of_the_cores() {
        let (model, examples, (adapter, part)) = (model(), examples(), adapter());
        let device = model.device();
        let mut outer = Vec::new();
        let start = Lora::<Flex>::from_adapter(&adapter, model.config(), &device).unwrap();
        let start = start.map(|factor, tensor: Tensor<Flex, 2>| {
            if factor == Factor::B {
                outer.push(tensor.clone());
            }
            tensor
        });
        let (cores, parameters) = Cores::place(&adapter, outer, &part, &model).unwrap();
        let lora = cores.joined(&start, &parameters);
        let batch = Batch::new(examples.iter(), 32);
        let off = ActivationCheckpointing::Off;
        let found = loss_and_gradients(&model, &lora, Factors::Core, &mut None, &batch, off);
        let gradients: Vec<f64> = cores
            .split(found.factors)
            .into_iter()
            .flat_map(|one| one.into_data().iter::<f64>().collect::<Vec<_>>())
            .map(|value| value / batch.targets().len() as f64)
            .collect();
        assert_eq!(gradients.len(), part.len());
        // V has 8 outputs, up 24, and a core has 9 numbers.
        let scale = |place: usize| {
            if (place / 9).is_multiple_of(2) {
                8.0_f64
            } else {
                24.0
            }
        };
        let step = 0.05;
        for place in [0, 5, 17, 35] {
            let at = |size: f32| {
                let mut change = vec![0.0; part.len()];
                change[place] = size;
                let mut moved = adapter.clone();
                moved.add(&part, &change).unwrap();
                loss(&moved)
            };
            let slope = (at(step) - at(-step)) / f64::from(2.0 * step);
            let got = gradients[place] / (scale(place) / 3.0).sqrt();
            let close = 0.03 * slope.abs() + 1e-5;
            assert!((got - slope).abs() < close, "{place}: {got} for {slope}");
        }
    }

    #[test]
    fn training_moves_what_cores_reach_and_nothing_else() {
        let (model, examples, (first, part)) = (model(), examples(), adapter());
        let options = TrainOptions {
            batches: Batches::Continuous {
                batch_size: TrainOption::BatchSize.count(12).unwrap(),
                shuffle: false,
                steps: TrainOption::Steps.count(8).unwrap(),
            },
            learning_rate: LearningRate::new(0.02).unwrap(),
            ..TrainOptions::default()
        };
        let from = (&first, Factors::Core, None);
        let new = || ModelTrainer::new(&model, from, &examples, &options).unwrap();
        let mut trainer = new();
        for _ in 0..4 {
            trainer.step().unwrap();
        }
        let mut resumed = new();
        resumed.restore(&trainer.state()).unwrap();
        while trainer.done() < trainer.steps() {
            trainer.step().unwrap();
            resumed.step().unwrap();
        }
        assert_eq!(trainer.state(), resumed.state());
        assert_eq!(trainer.part(), &part);
        let trained = trainer.adapter_with(&trainer.values()).unwrap();
        assert!(loss(&trained) < loss(&first));
        // What came of it is the first adapter and a change of cores.
        let delta = trained.difference(&first, &part).unwrap();
        let mut again = first.clone();
        again.add(&part, delta.values()).unwrap();
        let gaps = again.values().iter().zip(trained.values());
        let furthest = gaps.map(|(one, other)| (one - other).abs());
        assert!(furthest.fold(0.0, f32::max) < 1e-6);
    }
}
