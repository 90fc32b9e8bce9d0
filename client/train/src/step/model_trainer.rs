//! The training of an adapter's factors on one of burn's backends.

use burn::tensor::{Tensor, TensorData};
use fedlora_adapter::{
    Adapter, AdapterError, Factor, Factors, Layout, ProjectionTensor, TensorSpec,
};
use fedlora_model::{Batch, Dropout, Example, Llama, Lora, Passes, SplitMix, loss_and_gradients};

use crate::step::beside::{Beside, Frozen};
use crate::step::cores::Cores;
use crate::step::error::TrainError;
use crate::step::examples::usable;
use crate::step::optimizer::{AdamW, clip_on_device};
use crate::step::options::{Batches, Length, TrainOptions};
use crate::step::order::{Order, planned_batches};
use crate::step::proximal::Anchor;
use crate::step::report::Progress;
use crate::step::schedule::Schedule;
use crate::step::trainer::{StepBackend, TrainerState};

/// The stream of a seed that dropout draws from.
const DROPOUT: u64 = 2;

/// How an adapter is made of what is trained and what is not.
enum Made<B: Passes> {
    /// Of the selected factors and the others.
    OfFactors,
    /// Likewise, beside a frozen adapter.
    Beside(Frozen<B>),
    /// Of cores.
    OfCores(Cores<B>),
}

impl<B: Passes> Made<B> {
    /// What each of `count` parameters is multiplied by where it stands in the trained factors; 0 for
    /// the weights of a frozen adapter.
    fn scales(&self, count: usize) -> Vec<f64> {
        match self {
            Self::OfFactors => vec![1.0; count],
            Self::Beside(frozen) => (0..count)
                .map(|place| f64::from(u8::from(place < 2 * frozen.len())))
                .collect(),
            Self::OfCores(cores) => cores.scales().to_vec(),
        }
    }
}

/// A training on one backend.
pub(crate) struct ModelTrainer<'a, B: Passes> {
    model: &'a Llama<B>,
    /// As given; factors that are not trained keep these values.
    adapter: Adapter,
    factors: Factors,
    part: Layout,
    /// The factors that are not selected; empty tensors in place of the others.
    start: Lora<B>,
    /// What makes the adapter of start and parameters.
    made: Made<B>,
    /// The selected factors, in layout order; then the weights of the frozen adapter.
    parameters: Vec<Tensor<B, 2>>,
    /// Where training is held; none without a proximal term.
    anchor: Option<Anchor<B>>,
    optimizer: AdamW<B>,
    schedule: Schedule,
    options: TrainOptions,
    examples: Vec<&'a Example>,
    max_tokens: usize,
    order: Order,
    step: usize,
    steps: usize,
}

impl<'a, B: Passes> ModelTrainer<'a, B> {
    /// Places an adapter on the model's device, beside a frozen one where there is one.
    ///
    /// # Errors
    /// No usable example, an adapter made for another model or without the selected factors, or a
    /// frozen adapter of another configuration or beside a single factor.
    pub(crate) fn new(
        model: &'a Llama<B>,
        (adapter, factors, beside): (&Adapter, Factors, Option<&Beside>),
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Self, TrainError> {
        let positions = model.config().max_position_embeddings;
        let max_tokens = options.max_tokens.get().min(positions);
        let examples = usable(examples, model.config().vocab_size, max_tokens)?;
        let device = model.device();
        let mut parameters: Vec<Tensor<B, 2>> = Vec::new();
        let start = Lora::<B>::from_adapter(adapter, model.config(), &device)?;
        // Trained factors are in `parameters` alone.
        let start = start.map(|factor, tensor| {
            if !factors.contains(factor) {
                return tensor;
            }
            parameters.push(tensor);
            Tensor::zeros([1, 1], &device)
        });
        let part = adapter
            .layout()
            .subset(factors)
            .map_err(|_| TrainError::State {
                what: "the adapter has none of the factors to train",
            })?;
        let mut made = Made::OfFactors;
        if factors == Factors::Core {
            let (cores, placed) = Cores::place(adapter, parameters, &part, model)
                .map_err(|_| TrainError::Diverged { step: 0 })?;
            (made, parameters) = (Made::OfCores(cores), placed);
        }
        if let Some(beside) = beside {
            let alike = beside.adapter.config() == adapter.config()
                && beside.adapter.layout() == adapter.layout()
                && beside.weights.len() == adapter.projections();
            if !alike || factors != Factors::Both {
                return Err(TrainError::Beside);
            }
            let (placed, weights) = Frozen::place(beside, model)?;
            made = Made::Beside(placed);
            parameters.extend(weights);
        }
        let lengths: Vec<_> = examples
            .iter()
            .map(|example| example.tokens().len().min(max_tokens))
            .collect();
        let steps = match options.batches {
            Batches::Continuous { steps, .. }
            | Batches::Planned {
                length: Length::Steps(steps),
                ..
            } => steps.get(),
            Batches::Planned {
                batching,
                length: Length::Epochs(epochs),
            } => planned_batches(&lengths, batching, options.seed, epochs)
                .div_ceil(options.accumulation.get()),
        };
        let order = Order::new(lengths, options);
        let scales = made.scales(parameters.len()).into_iter();
        let anchor = Anchor::at(&parameters, scales, options.proximal);
        Ok(Self {
            model,
            adapter: adapter.clone(),
            factors,
            part,
            start,
            made,
            anchor,
            optimizer: AdamW::new(options.adamw(), parameters.len()),
            parameters,
            schedule: options.schedule(steps),
            options: options.clone(),
            examples,
            max_tokens,
            order,
            step: 0,
            steps,
        })
    }

    /// How many numbers are trained.
    fn count(&self) -> usize {
        let weights = match &self.made {
            Made::Beside(frozen) => frozen.len(),
            Made::OfFactors | Made::OfCores(_) => 0,
        };
        self.part.len() + weights
    }

    /// How many of the parameters are factors.
    fn factor_count(&self) -> usize {
        self.part.tensors().len()
    }

    /// The values of `tensors`, concatenated.
    fn flat<'t>(&self, tensors: impl Iterator<Item = &'t Tensor<B, 2>>) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.count());
        for tensor in tensors {
            values.extend(tensor.clone().into_data().iter::<f32>());
        }
        values
    }

    /// The adapter with these cores.
    fn with_cores(&self, cores: &[f32]) -> Result<Adapter, AdapterError> {
        let mut adapter = self.adapter.clone();
        let before = adapter.select(&self.part)?;
        let change: Vec<f32> = cores
            .iter()
            .zip(before)
            .map(|(now, then)| now - then)
            .collect();
        adapter.add(&self.part, &change)?;
        Ok(adapter)
    }

    /// The reverse of [`flat`](Self::flat).
    fn tensors(&self, values: &[f32]) -> Vec<Tensor<B, 2>> {
        let device = self.model.device();
        let factors = self.part.iter().map(|(spec, range)| {
            let data = TensorData::new(values[range].to_vec(), spec.shape.clone());
            Tensor::from_data(data, &device)
        });
        let weights = values[self.part.len()..].iter();
        factors
            .chain(weights.map(|weight| Tensor::from_floats([[*weight]], &device)))
            .collect()
    }
}

impl<B: Passes> StepBackend for ModelTrainer<'_, B> {
    /// The loss is the mean over all target tokens of the step's batches, accumulated ones
    /// included, so that accumulation changes memory and not the result.
    fn step(&mut self) -> Result<Progress, TrainError> {
        let epoch = self.order.position().epoch;
        let chosen: Vec<Vec<usize>> = (0..self.options.accumulation.get())
            .map_while(|_| self.order.take())
            .collect();
        let (mut tokens, mut batches) = (0, Vec::with_capacity(chosen.len()));
        for batch in chosen {
            let examples = batch.into_iter().map(|index| self.examples[index]);
            tokens += examples
                .clone()
                .map(|example| example.tokens().len().min(self.max_tokens))
                .sum::<usize>();
            batches.push(Batch::new(examples, self.max_tokens));
        }
        let targets: usize = batches.iter().map(|batch| batch.targets().len()).sum();
        if targets == 0 {
            return Err(TrainError::State {
                what: "no examples are left",
            });
        }
        let scheduled = self.options.first_step() + self.step;
        // Each step has masks of its own, so that a resumed training draws the same.
        let mut dropout = Dropout::new(
            self.adapter.config().dropout(),
            SplitMix::new(self.options.seed, DROPOUT + ((scheduled as u64) << 8)),
        );
        let scale = 1.0 / targets as f64;
        let mut gradients: Vec<Option<Tensor<B, 2>>> = vec![None; self.parameters.len()];
        let mut loss: Option<Tensor<B, 1>> = None;
        let lora = match &self.made {
            Made::Beside(frozen) => frozen.joined(&self.parameters),
            Made::OfCores(cores) => cores.joined(&self.start, &self.parameters),
            Made::OfFactors => place_factors(&self.start, self.factors, &self.parameters),
        };
        for batch in &batches {
            let found = loss_and_gradients(
                self.model,
                &lora,
                self.factors,
                &mut dropout,
                batch,
                self.options.checkpointing,
            );
            let part = found.loss.mul_scalar(scale);
            loss = Some(match loss {
                Some(sum) => sum + part,
                None => part,
            });
            let gradients_of = match &self.made {
                Made::Beside(frozen) => frozen.split(found.factors),
                Made::OfCores(cores) => cores.split(found.factors),
                Made::OfFactors => found.factors,
            };
            for (sum, gradient) in gradients.iter_mut().zip(gradients_of) {
                let gradient = gradient.mul_scalar(scale);
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        }
        // The optimizer changes parameters in place where nothing else holds them.
        drop(lora);
        if let Some(anchor) = &self.anchor {
            anchor.pull(&mut gradients, &self.parameters);
        }
        let limit = self
            .options
            .clip_norm
            .map_or(f64::INFINITY, |norm| norm.get());
        let norm = clip_on_device(&mut gradients, limit);
        let learning_rate = self.schedule.rate(scheduled);
        let factors = self.factor_count();
        let ratio = self.options.rate_ratio.get();
        let is_b = |place: usize| self.part.tensors().get(place).is_some_and(is_outer);
        // Cores are in the places of B, and no factors.
        let faster = self.factors != Factors::Core;
        let rates = |place| match faster && is_b(place) {
            true => learning_rate * ratio,
            false => learning_rate,
        };
        let decays = |place| place < factors;
        self.optimizer
            .step(&mut self.parameters, gradients, rates, decays);
        self.step += 1;

        // One transfer from the device, after the whole step is queued there.
        let figures: Vec<f64> = match (loss, norm) {
            (Some(loss), Some(norm)) => Tensor::cat(vec![loss, norm], 0)
                .into_data()
                .iter::<f64>()
                .collect(),
            _ => vec![f64::NAN],
        };
        let &[loss, gradient_norm] = figures.as_slice() else {
            return Err(TrainError::State {
                what: "nothing is trained",
            });
        };
        if !loss.is_finite() || !gradient_norm.is_finite() {
            return Err(TrainError::Diverged { step: self.step });
        }
        Ok(Progress {
            step: self.step,
            steps: self.steps,
            loss,
            learning_rate,
            gradient_norm,
            tokens,
            target_tokens: targets,
            epochs: self.order.epochs(),
            pass_ended: self.order.position().epoch > epoch,
        })
    }

    fn done(&self) -> usize {
        self.step
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn part(&self) -> &Layout {
        &self.part
    }

    fn adapter_with(&self, part: &[f32]) -> Result<Adapter, TrainError> {
        if part.len() != self.part.len() {
            return Err(TrainError::State {
                what: "it has another number of values",
            });
        }
        if self.factors == Factors::Core {
            return self
                .with_cores(part)
                .map_err(|_| TrainError::Diverged { step: self.step });
        }
        let places = self.adapter.layout().ranges();
        let mut values = self.adapter.values().to_vec();
        for (spec, range) in self.part.iter() {
            if let Some(place) = places.get(spec.name.as_str()) {
                values[place.clone()].copy_from_slice(&part[range]);
            }
        }
        let config = self.adapter.config().clone();
        Adapter::new(config, self.adapter.layout().clone(), values)
            .map_err(|_| TrainError::Diverged { step: self.step })
    }

    fn values(&self) -> Vec<f32> {
        let factors = &self.parameters[..self.factor_count()];
        match &self.made {
            Made::OfCores(cores) => self.flat(cores.cores(factors).iter()),
            Made::OfFactors | Made::Beside(_) => self.flat(factors.iter()),
        }
    }

    fn weights(&self) -> Vec<f32> {
        Frozen::<B>::weights(self.flat(self.parameters[self.factor_count()..].iter()))
    }

    fn state(&self) -> TrainerState {
        let moments = self.optimizer.moments();
        let zeros = |values: Vec<f32>| {
            // No moments exist before the first step.
            if values.is_empty() {
                vec![0.0; self.count()]
            } else {
                values
            }
        };
        TrainerState {
            step: self.step,
            position: self.order.position(),
            values: self.flat(self.parameters.iter()),
            first: zeros(self.flat(moments.iter().flatten().map(|(first, _)| first))),
            second: zeros(self.flat(moments.iter().flatten().map(|(_, second)| second))),
        }
    }

    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        let refuse = |what| Err(TrainError::State { what });
        let count = self.count();
        if [&state.values, &state.first, &state.second]
            .iter()
            .any(|values| values.len() != count)
        {
            return refuse("it has another number of values");
        }
        let updates = i32::try_from(state.step).unwrap_or(i32::MAX);
        if state.step > self.steps || updates == i32::MAX {
            return refuse("it has more steps than this training");
        }
        if !self.order.seek(state.position) {
            return refuse("its position in the data does not exist");
        }
        self.step = state.step;
        self.parameters = self.tensors(&state.values);
        let moments = if updates == 0 {
            vec![None; self.parameters.len()]
        } else {
            let second = self.tensors(&state.second);
            let first = self.tensors(&state.first).into_iter();
            first.zip(second).map(Some).collect()
        };
        self.optimizer = AdamW::resumed(self.options.adamw(), updates, moments);
        Ok(())
    }
}

/// Whether a tensor is the outer factor of its pair, B.
fn is_outer(spec: &TensorSpec) -> bool {
    let place = ProjectionTensor::parse(&spec.name);
    place.is_some_and(|place| place.factor == Factor::B)
}

/// The adapter with the selected factors replaced by `parameters`, in layout order.
fn place_factors<B: Passes>(
    start: &Lora<B>,
    factors: Factors,
    parameters: &[Tensor<B, 2>],
) -> Lora<B> {
    let mut parameters = parameters.iter();
    start.map(|factor, tensor| {
        if factors.contains(factor) {
            parameters.next().cloned().unwrap_or(tensor)
        } else {
            tensor
        }
    })
}
