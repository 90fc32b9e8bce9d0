//! How long an epoch takes: measured on steps, or estimated from one matrix product.

use std::time::Instant;

use anyhow::anyhow;
use fedlora_adapter::{Factors, LoraConfig};
use fedlora_data::Prepared;
use fedlora_model::Example;
use fedlora_shell::Printer;
use fedlora_train::{
    Batches, Engine, Estimate, MaxTokens, TrainOption, TrainOptions, product_rate,
};

use super::args::CheckArgs;
use super::report::{Measured, TimeSection};
use super::survey::{Checked, CheckedBase};
use crate::cli::args::ModelSpec;

/// The share of a lone product's speed that whole steps reach, roughly.
const EFFICIENCY: f64 = 0.6;
/// Steps that a probe measures, after one that does not count.
const PROBED: usize = 2;

/// The training whose time is wanted: the command's options, and what they resolve to.
#[derive(Clone, Copy)]
pub(super) struct TimedWork<'a> {
    pub(super) args: &'a CheckArgs,
    pub(super) model: &'a ModelSpec,
    pub(super) lora: &'a LoraConfig,
    pub(super) base: &'a CheckedBase,
}

/// How long an epoch takes on a device that can be used.
pub(super) fn time(
    checked: &mut Checked,
    work: &TimedWork<'_>,
    prepared: &Prepared,
    estimate: &Estimate,
    printer: &Printer,
) -> TimeSection {
    let TimedWork {
        args, model, base, ..
    } = *work;
    let mut section = steps(args, prepared);
    let mean = (prepared.report.tokens / prepared.examples.len().max(1)).max(2);
    let measured = if args.probe {
        printer.note(&format!(
            "measuring {PROBED} steps of {} x {mean} tokens",
            args.batch
        ));
        let speed = probe(work, mean);
        checked.note(speed).map(|speed| (speed, Measured::Step))
    } else {
        let rows = (mean * args.batch).min(2048);
        product_rate(&model.device, base.weights.config(), rows).map(|rate| {
            let speed = EFFICIENCY * rate / estimate.operations;
            (speed, Measured::Product)
        })
    };
    if let Some((speed, measured)) = measured {
        section.tokens_a_second = Some(speed);
        section.seconds_an_epoch = Some(section.tokens_an_epoch as f64 / speed);
        section.measured = Some(measured);
    }
    section
}

/// The steps of an epoch, whose time is not known yet.
pub(super) fn steps(args: &CheckArgs, prepared: &Prepared) -> TimeSection {
    TimeSection {
        steps_an_epoch: prepared.examples.len().div_ceil(args.batch),
        tokens_an_epoch: prepared.report.tokens,
        tokens_a_second: None,
        seconds_an_epoch: None,
        measured: None,
    }
}

/// Tokens a second of whole steps, on made-up tokens.
fn probe(work: &TimedWork<'_>, length: usize) -> anyhow::Result<f64> {
    let TimedWork {
        args,
        model,
        lora,
        base,
    } = *work;
    let engine = Engine::with_kind(&base.weights, model.kind, base.base.name(), &model.device)?;
    let adapter = engine.init_adapter(lora, 0)?;
    let example = |number: usize| {
        let tokens = (0..length).map(|at| (31 * at + 7 * number) % engine.vocab_size());
        Example::new(tokens.map(|id| id as u32).collect(), vec![true; length])
    };
    let examples: Vec<_> = (0..args.batch).map(example).collect();
    let options = TrainOptions {
        batches: Batches::Continuous {
            batch_size: TrainOption::BatchSize.count(args.batch)?,
            shuffle: true,
            steps: TrainOption::Steps.count(PROBED + 1)?,
        },
        max_tokens: MaxTokens::new(length)?,
        checkpointing: args.memory.resolve(),
        ..TrainOptions::default()
    };
    let mut begun = None;
    engine.train(&adapter, Factors::Both, &examples, &options, &mut |_| {
        begun.get_or_insert_with(Instant::now);
        std::ops::ControlFlow::Continue(())
    })?;
    let begun = begun.ok_or_else(|| anyhow!("the probe made no step"))?;
    Ok((PROBED * args.batch * length) as f64 / begun.elapsed().as_secs_f64())
}
