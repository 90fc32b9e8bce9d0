//! The training of all parameters, by the forward pass that the members use.

use std::time::Instant;

use anyhow::{Context, Result};
use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::Flex;
use fedlora_model::Example;
use fedlora_model::{BaseWeights, Batch, Llama, Packed, SplitMix, loss_sum};
use fedlora_train::{AdamW, AdamWConfig, Decay, Schedule, clip_global_norm};

use super::corpus::Corpus;

type Train = Autodiff<Flex>;

/// How to train.
pub struct Options {
    /// Optimizer steps.
    pub steps: usize,
    /// Windows in a step.
    pub batch: usize,
    /// Tokens in a window.
    pub window: usize,
    /// Highest learning rate.
    pub rate: f64,
    /// Parts of a batch computed at the same time.
    pub threads: usize,
    /// Seed of the order of windows.
    pub seed: u64,
    /// Seconds in which the schedule is to end where the steps take longer.
    pub seconds: f64,
}

/// The largest norm of a step's gradient.
const CLIP: f64 = 1.0;
/// Steps between two looks at the validation text.
const VALIDATE_EVERY: usize = 100;
/// Tokens of a piece of a validation document.
const VALIDATION_WINDOW: usize = 512;

/// Where the training stands.
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// The last step's mean loss in nats a token.
    pub loss: f64,
    /// The validation loss, where it was just taken.
    pub validation: Option<f64>,
    /// Tokens trained on in a second, from the start.
    pub tokens_per_second: f64,
}

/// What the training made.
pub struct Outcome {
    /// All weights.
    pub weights: BaseWeights,
    /// Steps that were done.
    pub steps: usize,
}

/// Trains from `initial`. `report` is called after each step and may ask for the weights.
pub fn pretrain(
    initial: &BaseWeights,
    corpus: &Corpus,
    options: &Options,
    mut report: impl FnMut(&Progress, &dyn Fn() -> BaseWeights) -> Result<()>,
) -> Result<Outcome> {
    let config = initial.config();
    let device = Default::default();
    let frame: Llama<Flex> = Llama::new(initial, &device)?;
    let mut parameters: Vec<Tensor<Flex, 2>> = frame.tensors().to_vec();
    let adam = AdamWConfig {
        beta2: 0.95,
        weight_decay: 0.1,
        ..AdamWConfig::default()
    };
    let mut optimizer = AdamW::new(adam, parameters.len());
    let schedule = Schedule {
        peak: options.rate,
        warmup: options.steps / 20,
        total: options.steps,
        decay: Decay::Cosine,
    };
    // Norms are not decayed.
    let decays: Vec<bool> = config.tensors().iter().map(|(_, s)| s.len() == 2).collect();
    let stream: Vec<u32> = corpus.train.concat();
    let mut windows = Windows::new(stream, options.window, options.seed);
    let started = Instant::now();
    let mut tokens = 0;
    let mut done = 0;
    while done < options.steps {
        // Where the machine is too slow for the steps, the schedule goes by the clock.
        let elapsed = started.elapsed().as_secs_f64() / options.seconds;
        let place = done.max((elapsed * options.steps as f64) as usize);
        if place >= options.steps {
            break;
        }
        let examples: Vec<Example> = (0..options.batch).map(|_| windows.next()).collect();
        let share = options.batch.div_ceil(options.threads.max(1));
        let counted: usize = examples.iter().map(Example::target_tokens).sum();
        let model = with_parameters(&frame, &parameters);
        let parts: Vec<(f64, Vec<Tensor<Flex, 2>>)> = std::thread::scope(|scope| {
            let handles: Vec<_> = examples
                .chunks(share)
                .map(|part| {
                    let model = &model;
                    scope.spawn(move || gradients(model, part, counted))
                })
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().expect("the training thread panicked"))
                .collect()
        });
        let mut loss = 0.0;
        let mut sum: Option<Vec<Tensor<Flex, 2>>> = None;
        for (part_loss, part) in parts {
            loss += part_loss;
            sum = Some(match sum {
                None => part,
                Some(sum) => sum.into_iter().zip(part).map(|(a, b)| a + b).collect(),
            });
        }
        let mut gradients: Vec<_> = sum.into_iter().flatten().map(Some).collect();
        clip_global_norm(&mut gradients, CLIP);
        optimizer.step(
            &mut parameters,
            gradients,
            |_| schedule.rate(place),
            |i| decays[i],
        );
        tokens += counted;

        done += 1;
        let weights = || to_weights(initial, &parameters);
        let look = done % VALIDATE_EVERY == 0;
        let validation =
            look.then(|| mean_loss(&with_parameters(&frame, &parameters), &corpus.validation));
        let progress = Progress {
            step: done,
            loss,
            validation,
            tokens_per_second: tokens as f64 / started.elapsed().as_secs_f64(),
        };
        report(&progress, &weights).context("in the report of a step")?;
    }
    Ok(Outcome {
        weights: to_weights(initial, &parameters),
        steps: done,
    })
}

/// Mean loss on the validation documents in nats a token, as `weights` stand.
///
/// # Errors
/// Weights that cannot be read.
pub fn validation_loss(weights: &BaseWeights, corpus: &Corpus) -> Result<f64> {
    let model = Llama::<Flex>::new(weights, &Default::default())?;
    Ok(mean_loss(&model, &corpus.validation))
}

fn gradients(
    model: &Llama<Flex>,
    examples: &[Example],
    counted: usize,
) -> (f64, Vec<Tensor<Flex, 2>>) {
    let model: Llama<Train> = model.map(
        |weight| Tensor::from_inner(weight).require_grad(),
        Packed::lift,
        Tensor::from_inner,
        &model.device(),
    );
    let batch = Batch::new(examples, usize::MAX);
    let loss = loss_sum(&model, None, &mut None, &batch).div_scalar(counted as f64);
    let value = loss.clone().into_data().iter::<f64>().sum();
    let gradients = loss.backward();
    let gradients = model
        .tensors()
        .iter()
        .map(|parameter| {
            parameter
                .grad(&gradients)
                .expect("every weight takes part in the forward pass")
        })
        .collect();
    (value, gradients)
}

fn with_parameters(frame: &Llama<Flex>, parameters: &[Tensor<Flex, 2>]) -> Llama<Flex> {
    let mut parameters = parameters.iter();
    frame.map(
        |weight| parameters.next().cloned().unwrap_or(weight),
        Packed::clone,
        |table| table,
        &frame.device(),
    )
}

fn to_weights(initial: &BaseWeights, parameters: &[Tensor<Flex, 2>]) -> BaseWeights {
    let values = parameters
        .iter()
        .map(|parameter| parameter.clone().into_data().iter::<f32>().collect())
        .collect();
    BaseWeights::new(initial.config().clone(), values)
}

/// Every token but a document's first counts; a long document is read in pieces that share
/// one token, so that each prediction is made once.
fn mean_loss(model: &Llama<Flex>, documents: &[Vec<u32>]) -> f64 {
    let mut examples = Vec::new();
    for document in documents {
        for start in (0..document.len() - 1).step_by(VALIDATION_WINDOW) {
            let end = (start + VALIDATION_WINDOW + 1).min(document.len());
            examples.push(whole(document[start..end].to_vec()));
        }
    }
    examples.sort_by_key(|example| example.tokens().len());
    let (mut loss, mut counted) = (0.0, 0);
    for part in examples.chunks(8) {
        let batch = Batch::new(part, usize::MAX);
        counted += batch.targets().len();
        loss += loss_sum(model, None, &mut None, &batch)
            .into_data()
            .iter::<f64>()
            .sum::<f64>();
    }
    loss / counted as f64
}

fn whole(tokens: Vec<u32>) -> Example {
    let counts = vec![true; tokens.len()];
    Example::new(tokens, counts)
}

/// Windows of the training stream, every token once an epoch, in a shuffled order and from
/// another offset each time.
struct Windows {
    stream: Vec<u32>,
    window: usize,
    starts: Vec<usize>,
    random: SplitMix,
}

impl Windows {
    fn new(stream: Vec<u32>, window: usize, seed: u64) -> Self {
        Self {
            stream,
            window: window.max(1),
            starts: Vec::new(),
            random: SplitMix::new(seed, 2),
        }
    }

    fn next(&mut self) -> Example {
        if self.starts.is_empty() {
            let offset = self.random.below(self.window);
            let last = self.stream.len().saturating_sub(self.window + 1);
            self.starts = (offset.min(last)..=last).step_by(self.window).collect();
            self.random.shuffle(&mut self.starts);
        }
        let start = self.starts.pop().unwrap_or(0);
        let end = (start + self.window + 1).min(self.stream.len());
        whole(self.stream[start..end].to_vec())
    }
}
