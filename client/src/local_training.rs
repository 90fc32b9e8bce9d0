//! A member's training within rounds, and the optimizer state that lives on between them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use fedlora_adapter::{Adapter, Factors};
use fedlora_model::Example;
use fedlora_train::{
    Beside, Engine, Progress, Span, TrainError, TrainOption, TrainOptions, TrainerState,
};
use zeroize::Zeroize;

/// The optimizer state of a run's rounds, by the factors that they train. Never leaves the member:
/// wiped when dropped, and not written to the disk.
#[derive(Default)]
pub(crate) struct KeptStates(Mutex<BTreeMap<Factors, KeptState>>);

/// The state after the rounds of one kind of factors.
struct KeptState(TrainerState);

impl Drop for KeptState {
    fn drop(&mut self) {
        let TrainerState {
            values,
            first,
            second,
            ..
        } = &mut self.0;
        values.zeroize();
        first.zeroize();
        second.zeroize();
    }
}

impl fmt::Debug for KeptStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptStates(..)")
    }
}

/// One round of training.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoundTraining<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) examples: &'a [Example],
    /// The adapter that is trained.
    pub(crate) adapter: &'a Adapter,
    /// The frozen adapter that it stands beside.
    pub(crate) beside: Option<&'a Beside>,
    pub(crate) factors: Factors,
    /// This round's options: its span begins after the steps of the rounds before.
    pub(crate) options: &'a TrainOptions,
    /// Steps of this round.
    pub(crate) steps: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct TrainedRound {
    pub(crate) adapter: Adapter,
    /// The weights of the frozen adapter beside it.
    pub(crate) weights: Vec<f32>,
    /// Mean loss of the steps, in nats a target token.
    pub(crate) mean_loss: f64,
    /// Target tokens of all steps.
    pub(crate) tokens: usize,
    /// Whether the caller stopped it.
    pub(crate) stopped: bool,
}

impl KeptStates {
    /// Trains on from the optimizer state of the last round with the same factors, in the same order
    /// of examples. A round that is stopped or fails leaves the state as it was.
    pub(crate) fn train(
        &self,
        round: RoundTraining<'_>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<TrainedRound, TrainError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.get(&round.factors);
        let updates = before.map_or(0, |KeptState(state)| state.step);
        let options = round.options_after(updates)?;
        let engine = round.engine;
        let from = (round.adapter, round.factors, round.beside);
        let mut trainer = engine.trainer_beside(from, round.examples, &options)?;
        if let Some(KeptState(before)) = before {
            // The moments of the last round, with the values of the new adapter.
            trainer.restore(&TrainerState {
                values: trainer.state().values,
                ..before.clone()
            })?;
        }
        let mut trained = TrainedRound {
            adapter: round.adapter.clone(),
            weights: Vec::new(),
            mean_loss: 0.0,
            tokens: 0,
            stopped: false,
        };
        let mut loss = 0.0;
        for step in 1..=round.steps {
            let done = trainer.step()?;
            loss += done.loss * done.target_tokens as f64;
            trained.tokens += done.target_tokens;
            let steps = round.steps;
            if progress(Progress {
                step,
                steps,
                ..done
            })
            .is_break()
            {
                trained.stopped = true;
                return Ok(trained);
            }
        }
        trained.mean_loss = loss / (trained.tokens as f64).max(1.0);
        trained.adapter = trainer.adapter()?;
        trained.weights = trainer.weights();
        kept.insert(round.factors, KeptState(trainer.state()));
        Ok(trained)
    }
}

impl RoundTraining<'_> {
    /// The options of a training that has taken `updates` steps when it comes to this round. A
    /// member that missed rounds has taken fewer than the run: the learning rate goes by the run,
    /// AdamW's bias correction by the member.
    fn options_after(&self, updates: usize) -> Result<TrainOptions, TrainError> {
        let steps = TrainOption::Steps.count(updates + self.steps)?;
        let span = self.options.span.map(|span| Span {
            first: span.first.saturating_sub(updates),
            ..span
        });
        Ok(TrainOptions {
            batches: self.options.batches.with_steps(steps),
            span,
            ..self.options.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::path::Path;

    use fedlora_adapter::{LoraConfig, Target};
    use fedlora_train::{Batches, Device, LearningRate};

    use super::*;

    const STEPS: usize = 3;

    fn engine() -> Engine {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny");
        Engine::open(&base, &Device::Cpu).unwrap()
    }

    fn examples() -> Vec<Example> {
        let tokens = |start: u32| (start..start + 9).collect();
        let starts = [2, 7, 11, 19, 23, 30, 34];
        starts
            .map(|start| Example::new(tokens(start), vec![true; 9]))
            .to_vec()
    }

    fn first(engine: &Engine) -> Adapter {
        let lora = LoraConfig::new(4, 8.0, 0.0, Target::ALL).unwrap();
        engine.init_adapter(&lora, 5).unwrap()
    }

    fn options(first: usize) -> TrainOptions {
        let count = |value| NonZeroUsize::new(value).unwrap();
        TrainOptions {
            batches: Batches::Continuous {
                batch_size: count(2),
                shuffle: true,
                steps: count(STEPS),
            },
            learning_rate: LearningRate::new(0.01).unwrap(),
            span: Some(Span {
                first,
                total: count(4 * STEPS),
            }),
            seed: 9,
            ..TrainOptions::default()
        }
    }

    fn train(states: &KeptStates, adapter: &Adapter, round: usize, stop_at: usize) -> TrainedRound {
        let training = RoundTraining {
            engine: &engine(),
            examples: &examples(),
            adapter,
            beside: None,
            factors: Factors::Both,
            options: &options(STEPS * round),
            steps: STEPS,
        };
        let mut watch = |progress: Progress| match progress.step == stop_at {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        states.train(training, &mut watch).unwrap()
    }

    /// Alone in a federation, a member's rounds are one training that was cut.
    #[test]
    fn rounds_of_one_member_are_one_training() {
        let engine = engine();
        let states = KeptStates::default();
        let mut adapter = first(&engine);
        for round in 0..3 {
            adapter = train(&states, &adapter, round, 0).adapter;
        }
        let mut options = options(0);
        if let Batches::Continuous { steps, .. } = &mut options.batches {
            *steps = NonZeroUsize::new(3 * STEPS).unwrap();
        }
        let examples = examples();
        let begin = first(&engine);
        let mut trainer = engine
            .trainer(&begin, Factors::Both, &examples, &options)
            .unwrap();
        for _ in 0..3 * STEPS {
            trainer.step().unwrap();
        }
        assert_eq!(trainer.adapter().unwrap(), adapter);
    }

    #[test]
    fn a_round_that_was_stopped_begins_again() {
        let adapter = first(&engine());
        let states = KeptStates::default();
        let second = train(&states, &adapter, 0, 0).adapter;
        assert!(train(&states, &second, 1, 2).stopped);
        let again = train(&states, &second, 1, 0).adapter;
        let other = KeptStates::default();
        let _ = train(&other, &adapter, 0, 0);
        assert_eq!(train(&other, &second, 1, 0).adapter, again);
    }

    /// What the optimizer has seen decides, so that a state that is kept is another than none.
    #[test]
    fn a_fresh_state_trains_otherwise() {
        let adapter = first(&engine());
        let states = KeptStates::default();
        let second = train(&states, &adapter, 0, 0).adapter;
        let kept = train(&states, &second, 1, 0).adapter;
        let fresh = train(&KeptStates::default(), &second, 1, 0).adapter;
        assert_ne!(kept, fresh);
        // The learning rate goes by the run's steps, also for who missed rounds.
        assert_ne!(train(&KeptStates::default(), &second, 2, 0).adapter, fresh);
    }
}
