//! The training of an adapter's factors, generic over burn's backends.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use fedlora_common::adapter::{Adapter, Factor, Factors, ProjectionTensor};

use super::optimizer::{AdamW, clip_global_norm};
use super::options::{Progress, TrainError, TrainOptions, TrainReport, Trained};
use crate::data::Example;
use crate::model::{Batch, Dropout, Llama, Lora, Memory, Passes, SplitMix, loss_and_gradients};

/// Streams of one seed.
const ORDER: u64 = 1;
const DROPOUT: u64 = 2;

/// Trains the selected factors of `adapter` on `examples`.
///
/// A step's loss is the mean over all counted tokens of its batches, accumulated ones
/// included, so that accumulation changes memory and not the result.
pub(super) fn train<B: Passes>(
    model: &Llama<B>,
    adapter: &Adapter,
    factors: Factors,
    examples: &[Example],
    options: &TrainOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    options.check()?;
    let max_tokens = options
        .max_tokens
        .min(model.config().max_position_embeddings);
    let examples = usable(examples, model.config().vocab_size, max_tokens)?;
    let device = model.device();
    let mut parameters: Vec<Tensor<B, 2>> = Vec::new();
    let start = Lora::<B>::from_adapter(adapter, model.config(), &device)?;
    start.map(|factor, tensor| {
        if factors.contains(factor) {
            parameters.push(tensor.clone());
        }
        tensor
    });
    let mut optimizer = AdamW::new(options.adamw(), parameters.len());
    let schedule = options.schedule();
    let mut order = Order::new(examples.len(), options);
    let mut dropout = Dropout::new(
        adapter.config().dropout(),
        SplitMix::new(options.seed, DROPOUT + ((options.first_step as u64) << 8)),
    );
    let mut report = TrainReport {
        steps: 0,
        mean_loss: 0.0,
        losses: Vec::with_capacity(options.steps),
        tokens: 0,
        stopped: false,
    };
    let mut loss_total = 0.0;

    for step in 0..options.steps {
        let batches: Vec<Batch> = (0..options.accumulation)
            .map(|_| {
                let chosen = order.take(options.batch_size);
                Batch::new(chosen.into_iter().map(|index| examples[index]), max_tokens)
            })
            .collect();
        let counted: usize = batches.iter().map(|batch| batch.targets().len()).sum();
        let mut gradients: Vec<Option<Tensor<B, 2>>> = vec![None; parameters.len()];
        let mut step_loss = 0.0;
        let scale = 1.0 / counted as f64;
        for batch in &batches {
            let lora = place(&start, factors, &parameters);
            let found = loss_and_gradients(
                model,
                &lora,
                factors,
                &mut dropout,
                batch,
                Memory::default(),
            );
            step_loss += found.loss.into_data().iter::<f64>().sum::<f64>() * scale;
            for (sum, gradient) in gradients.iter_mut().zip(found.factors) {
                let gradient = gradient.mul_scalar(scale);
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        }
        let limit = if options.clip_norm > 0.0 {
            options.clip_norm
        } else {
            f64::INFINITY
        };
        let gradient_norm = clip_global_norm(&mut gradients, limit);
        if !step_loss.is_finite() || !gradient_norm.is_finite() {
            return Err(TrainError::Diverged { step: step + 1 });
        }
        let learning_rate = schedule.rate(options.first_step + step);
        optimizer.step(&mut parameters, gradients, learning_rate, |_| true);

        loss_total += step_loss * counted as f64;
        report.tokens += counted;
        report.steps += 1;
        report.losses.push(step_loss);
        let flow = progress(Progress {
            step: step + 1,
            steps: options.steps,
            loss: step_loss,
            learning_rate,
            gradient_norm,
        });
        if flow.is_break() {
            report.stopped = true;
            break;
        }
    }
    report.mean_loss = loss_total / (report.tokens as f64).max(1.0);
    let adapter = collect(adapter, factors, &parameters)
        .ok_or(TrainError::Diverged { step: report.steps })?;
    Ok(Trained { adapter, report })
}

/// The examples that count a token within the cut. A token outside the vocabulary is an error.
pub(super) fn usable(
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
fn place<B: Passes>(start: &Lora<B>, factors: Factors, parameters: &[Tensor<B, 2>]) -> Lora<B> {
    let mut parameters = parameters.iter();
    start.map(|factor, tensor| {
        if factors.contains(factor) {
            parameters.next().cloned().unwrap_or(tensor)
        } else {
            tensor
        }
    })
}

/// The adapter with the trained factors put in; `None` where one is not finite.
fn collect<B: Passes>(
    adapter: &Adapter,
    factors: Factors,
    parameters: &[Tensor<B, 2>],
) -> Option<Adapter> {
    let mut values = adapter.values().to_vec();
    let mut parameters = parameters.iter();
    for (spec, range) in adapter.layout().iter() {
        let factor = ProjectionTensor::parse(&spec.name).map(|place| place.factor);
        if factor.is_some_and(|factor: Factor| factors.contains(factor)) {
            let trained = parameters.next()?.clone().into_data();
            for (value, trained) in values[range].iter_mut().zip(trained.iter::<f32>()) {
                *value = trained;
            }
        }
    }
    Adapter::new(adapter.config().clone(), adapter.layout().clone(), values).ok()
}

/// Which examples come next: pass after pass, each shuffled by the seed.
struct Order {
    waiting: Vec<usize>,
    count: usize,
    shuffle: bool,
    random: SplitMix,
}

impl Order {
    fn new(count: usize, options: &TrainOptions) -> Self {
        Self {
            waiting: Vec::new(),
            count,
            shuffle: options.shuffle,
            // Another order in each round of a schedule that spans rounds.
            random: SplitMix::new(options.seed, ORDER + ((options.first_step as u64) << 8)),
        }
    }

    fn take(&mut self, count: usize) -> Vec<usize> {
        (0..count.min(self.count))
            .map(|_| {
                if self.waiting.is_empty() {
                    self.waiting = (0..self.count).rev().collect();
                    if self.shuffle {
                        self.random.shuffle(&mut self.waiting);
                    }
                }
                self.waiting.pop().unwrap_or(0)
            })
            .collect()
    }
}
