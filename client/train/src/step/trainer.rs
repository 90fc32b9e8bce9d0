//! The training of an adapter's factors, step by step, generic over burn's backends.

use std::ops::ControlFlow;

use burn::tensor::{Tensor, TensorData};
use fedlora_adapter::{Adapter, Factors, Layout};

use crate::step::optimizer::{AdamW, clip_on_device};
use crate::step::options::{Progress, TrainError, TrainOptions, TrainReport, Trained};
use crate::step::order::{Order, Position};
use crate::step::schedule::Schedule;
use fedlora_model::Example;
use fedlora_model::{Batch, Dropout, Llama, Lora, Passes, SplitMix, loss_and_gradients};

/// The stream of a seed that dropout draws from.
const DROPOUT: u64 = 2;

/// A training that is taken one optimizer step at a time, and whose state can be put away
/// and taken up again: what follows is then the same bit for bit.
pub struct Trainer<'a>(pub(crate) Box<dyn Steps + 'a>);

/// All that a training's next steps depend on, beside what it was begun with. Dropout needs
/// nothing here: each step draws its masks from the seed and its own number.
#[derive(Clone, PartialEq)]
pub struct TrainerState {
    /// Steps done.
    pub step: usize,
    /// The place in the order of examples.
    pub position: Position,
    /// The trained factors, in the order of [`Trainer::part`].
    pub values: Vec<f32>,
    /// AdamW's first moments, one a value.
    pub first: Vec<f32>,
    /// AdamW's second moments, one a value.
    pub second: Vec<f32>,
}

impl std::fmt::Debug for TrainerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainerState")
            .field("step", &self.step)
            .field("position", &self.position)
            .field("values", &self.values.len())
            .finish()
    }
}

impl Trainer<'_> {
    /// One optimizer step.
    ///
    /// # Errors
    /// [`TrainError::Diverged`]; the state is then of no use any more.
    pub fn step(&mut self) -> Result<Progress, TrainError> {
        self.0.step()
    }

    /// Steps done.
    pub fn done(&self) -> usize {
        self.0.done()
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> usize {
        self.0.steps()
    }

    /// The layout of what is trained.
    pub fn part(&self) -> &Layout {
        self.0.part()
    }

    /// The adapter as it stands.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] where a value is not finite.
    pub fn adapter(&self) -> Result<Adapter, TrainError> {
        self.0.adapter_with(&self.0.values())
    }

    /// The adapter with other values of the trained factors, in the order of
    /// [`part`](Self::part).
    ///
    /// # Errors
    /// [`TrainError::State`] where they are not as many as there are, [`TrainError::Diverged`]
    /// where one is not finite.
    pub fn adapter_with(&self, values: &[f32]) -> Result<Adapter, TrainError> {
        self.0.adapter_with(values)
    }

    /// The values of the trained factors.
    pub fn values(&self) -> Vec<f32> {
        self.0.values()
    }

    /// What to put away.
    pub fn state(&self) -> TrainerState {
        self.0.state()
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// [`TrainError::State`] where it is no state of a training like this one; nothing has
    /// changed then.
    pub fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.0.restore(state)
    }
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trainer(step {} of {})", self.done(), self.steps())
    }
}

/// [`Trainer`], with the backend hidden.
pub(crate) trait Steps {
    fn step(&mut self) -> Result<Progress, TrainError>;
    fn done(&self) -> usize;
    fn steps(&self) -> usize;
    fn part(&self) -> &Layout;
    fn adapter_with(&self, values: &[f32]) -> Result<Adapter, TrainError>;
    fn values(&self) -> Vec<f32>;
    fn state(&self) -> TrainerState;
    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError>;
}

/// Trains the selected factors of `adapter` on `examples`, all steps in one go.
pub(crate) fn train(
    mut trainer: Trainer<'_>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    let mut report = TrainReport {
        steps: 0,
        mean_loss: 0.0,
        losses: Vec::with_capacity(trainer.steps()),
        tokens: 0,
        stopped: false,
    };
    let mut loss_total = 0.0;
    while trainer.done() < trainer.steps() {
        let done = trainer.step()?;
        loss_total += done.loss * done.counted_tokens as f64;
        report.tokens += done.counted_tokens;
        report.steps += 1;
        report.losses.push(done.loss);
        if progress(done).is_break() {
            report.stopped = true;
            break;
        }
    }
    report.mean_loss = loss_total / (report.tokens as f64).max(1.0);
    let adapter = trainer.adapter()?;
    Ok(Trained { adapter, report })
}

/// A training on one backend.
pub(crate) struct ModelTrainer<'a, B: Passes> {
    model: &'a Llama<B>,
    /// As it was given: what is not trained stays so.
    adapter: Adapter,
    factors: Factors,
    part: Layout,
    /// The factors that are not selected, in their places.
    start: Lora<B>,
    /// The selected factors, in layout order.
    parameters: Vec<Tensor<B, 2>>,
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
    /// Places an adapter beside the model.
    pub(crate) fn new(
        model: &'a Llama<B>,
        adapter: &Adapter,
        factors: Factors,
        examples: &'a [Example],
        options: &TrainOptions,
    ) -> Result<Self, TrainError> {
        options.check()?;
        let max_tokens = options
            .max_tokens
            .min(model.config().max_position_embeddings);
        let examples = usable(examples, model.config().vocab_size, max_tokens)?;
        let device = model.device();
        let mut parameters: Vec<Tensor<B, 2>> = Vec::new();
        let start = Lora::<B>::from_adapter(adapter, model.config(), &device)?;
        // What is trained stands in `parameters` alone.
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
        let lengths = examples
            .iter()
            .map(|example| example.tokens().len().min(max_tokens))
            .collect();
        let order = Order::new(lengths, options);
        let steps = match order.batches() {
            Some(batches) => batches.div_ceil(options.accumulation),
            None => options.steps,
        };
        Ok(Self {
            model,
            adapter: adapter.clone(),
            factors,
            part,
            start,
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

    /// The values of `tensors` one after another.
    fn flat<'t>(&self, tensors: impl Iterator<Item = &'t Tensor<B, 2>>) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.part.len());
        for tensor in tensors {
            values.extend(tensor.clone().into_data().iter::<f32>());
        }
        values
    }

    /// The reverse of [`flat`](Self::flat).
    fn tensors(&self, values: &[f32]) -> Vec<Tensor<B, 2>> {
        let device = self.model.device();
        self.part
            .iter()
            .map(|(spec, range)| {
                let data = TensorData::new(values[range].to_vec(), spec.shape.clone());
                Tensor::from_data(data, &device)
            })
            .collect()
    }
}

impl<B: Passes> Steps for ModelTrainer<'_, B> {
    /// The loss is the mean over all counted tokens of the step's batches, accumulated ones
    /// included, so that accumulation changes memory and not the result.
    fn step(&mut self) -> Result<Progress, TrainError> {
        let epoch = self.order.position().epoch;
        let chosen: Vec<Vec<usize>> = (0..self.options.accumulation)
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
        let counted: usize = batches.iter().map(|batch| batch.targets().len()).sum();
        if counted == 0 {
            return Err(TrainError::State {
                what: "no examples are left",
            });
        }
        let place = self.options.first_step + self.step;
        // Masks of its own for each step: a training that is taken up again draws the same.
        let mut dropout = Dropout::new(
            self.adapter.config().dropout(),
            SplitMix::new(self.options.seed, DROPOUT + ((place as u64) << 8)),
        );
        let scale = 1.0 / counted as f64;
        let mut gradients: Vec<Option<Tensor<B, 2>>> = vec![None; self.parameters.len()];
        let mut loss: Option<Tensor<B, 1>> = None;
        let lora = place_factors(&self.start, self.factors, &self.parameters);
        for batch in &batches {
            let found = loss_and_gradients(
                self.model,
                &lora,
                self.factors,
                &mut dropout,
                batch,
                self.options.memory,
            );
            let part = found.loss.mul_scalar(scale);
            loss = Some(match loss {
                Some(sum) => sum + part,
                None => part,
            });
            for (sum, gradient) in gradients.iter_mut().zip(found.factors) {
                let gradient = gradient.mul_scalar(scale);
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        }
        // The parameters are to be changed in place: nothing else may hold them.
        drop(lora);
        let limit = if self.options.clip_norm > 0.0 {
            self.options.clip_norm
        } else {
            f64::INFINITY
        };
        let norm = clip_on_device(&mut gradients, limit);
        let learning_rate = self.schedule.rate(place);
        self.optimizer
            .step(&mut self.parameters, gradients, learning_rate, |_| true);
        self.step += 1;

        // One transfer from the device, when all of the step is on its way.
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
            counted_tokens: counted,
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
        self.flat(self.parameters.iter())
    }

    fn state(&self) -> TrainerState {
        let moments = self.optimizer.moments();
        let zeros = |values: Vec<f32>| {
            // Before the first step there are none yet.
            if values.is_empty() {
                vec![0.0; self.part.len()]
            } else {
                values
            }
        };
        TrainerState {
            step: self.step,
            position: self.order.position(),
            values: self.values(),
            first: zeros(self.flat(moments.iter().flatten().map(|(first, _)| first))),
            second: zeros(self.flat(moments.iter().flatten().map(|(_, second)| second))),
        }
    }

    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        let refuse = |what| Err(TrainError::State { what });
        let count = self.part.len();
        if [&state.values, &state.first, &state.second]
            .iter()
            .any(|values| values.len() != count)
        {
            return refuse("it has another number of values");
        }
        let updates = i32::try_from(state.step).unwrap_or(i32::MAX);
        if state.step > self.steps || updates == i32::MAX {
            return refuse("it is further than the training goes");
        }
        if !self.order.seek(state.position) {
            return refuse("its place in the data is not there");
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

/// The examples that count a token within the cut. A token outside the vocabulary is an error.
pub(crate) fn usable(
    examples: &[Example],
    vocab: usize,
    max_tokens: usize,
) -> Result<Vec<&Example>, TrainError> {
    for example in examples {
        if let Some(&got) = example.tokens().iter().find(|&&id| id as usize >= vocab) {
            return Err(TrainError::Token { got, vocab });
        }
    }
    let usable: Vec<_> = examples
        .iter()
        .filter(|example| example.loss().iter().take(max_tokens).any(|&counts| counts))
        .collect();
    if usable.is_empty() {
        return Err(TrainError::NoTokens {
            examples: examples.len(),
            max_tokens,
        });
    }
    Ok(usable)
}

/// The adapter with the selected factors as they stand now, given in layout order.
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
