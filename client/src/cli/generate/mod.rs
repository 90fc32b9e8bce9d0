//! `fedlora generate`: answers or continues a prompt, and prints each piece as it is generated.

mod prompt;

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::str::FromStr;

use anyhow::anyhow;
use fedlora_protocol::crypto::os_rng;
use fedlora_shell::{Failure, Format, Printer, stderr_is_rich};
use fedlora_train::decode::{
    Finish, GenerateError, GenerateOptions, Generated, Sampling, StopText, generate,
};
use fedlora_train::{DecodeError, Engine};
use rand::Rng;
use serde::Serialize;

use super::args::{AdapterArg, ModelArgs, ResponseArg};
use super::exits::{data, usage};
use super::open::open_model;

/// The default temperature.
const TEMPERATURE: f64 = 0.8;
/// The default top-p: the model's own distribution without its improbable tail.
const TOP_P: f64 = 0.95;

/// Most tokens of an answer by default.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(256).expect("above 0");

/// Options of `fedlora generate`.
#[derive(Debug, clap::Args)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    adapter: AdapterArg,
    /// What to answer or, with --raw, to continue; - reads it from standard input.
    #[arg(long, allow_hyphen_values = true)]
    prompt: String,
    /// The system turn, before the prompt.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the prompt as plain text, without the chat template.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    response: ResponseArg,
    /// A text that ends the answer and is not printed; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<StopText>,
    /// Always take the likeliest token.
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k", "seed"])]
    greedy: bool,
    /// Divides the logits: below 1 sharpens; greedy takes the likeliest token [default: 0.8].
    #[arg(long, allow_negative_numbers = true, value_name = "T|greedy")]
    temperature: Option<Temperature>,
    /// Draw from the fewest tokens that together have this probability [default: 0.95].
    #[arg(long, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Draw from this many of the likeliest tokens [default: from all].
    #[arg(long)]
    top_k: Option<usize>,
    /// Seed of the draws; random by default, and then shown.
    #[arg(long)]
    seed: Option<u64>,
}

/// How far the likeliest tokens are preferred.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Temperature {
    /// A finite number above 0, which divides the logits.
    Positive(f64),
    /// The limit towards 0: always the likeliest token.
    Greedy,
}

impl FromStr for Temperature {
    type Err = TemperatureError;

    fn from_str(text: &str) -> Result<Self, TemperatureError> {
        if text == "greedy" {
            return Ok(Self::Greedy);
        }
        match text.parse::<f64>() {
            // The usual spelling of the limit elsewhere.
            Ok(0.0) => Ok(Self::Greedy),
            Ok(number) if number.is_finite() && number > 0.0 => Ok(Self::Positive(number)),
            _ => Err(TemperatureError),
        }
    }
}

/// Text that is neither a temperature nor `greedy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give a finite positive number, or greedy")]
struct TemperatureError;

/// What `--format json` prints.
#[derive(Serialize)]
struct AnswerDocument<'a> {
    base: &'a str,
    adapter: Option<String>,
    base_dtype: String,
    device: String,
    text: &'a str,
    tokens: usize,
    token_ids: &'a [u32],
    prompt_tokens: usize,
    finish_reason: &'static str,
    seed: Option<u64>,
    prompt_seconds: f64,
    tokens_per_second: Option<f64>,
}

/// Runs the command.
pub(super) fn run(args: &GenerateArgs, printer: &Printer) -> Result<(), Failure> {
    let (sampling, seed) = sampling(args)?;
    let model = args.model.resolve()?;
    let text = prompt::text(&args.prompt)?;
    let opened = open_model(&model, args.adapter.folder.as_deref(), printer)?;
    let prompt = prompt::tokens(
        &text,
        args.system.as_deref(),
        args.raw,
        &opened.pipeline,
        printer,
    )?;
    let decoder = opened.engine.decoder(opened.adapter.as_ref());
    let options = GenerateOptions {
        max_tokens: args.response.resolve(MAX_TOKENS),
        sampling,
        ends: opened.pipeline.end_tokens().collect(),
        stops: args.stop.clone(),
    };
    let terminal = io::stdout().is_terminal();
    let made = generate(
        decoder.map_err(data)?,
        &opened.pipeline,
        &prompt,
        &options,
        &mut |piece| match printer.format() {
            Format::Json => ControlFlow::Continue(()),
            Format::Text => match printer.write(|out| write_piece(out, piece, terminal)) {
                true => ControlFlow::Continue(()),
                // Nobody reads any more.
                false => ControlFlow::Break(()),
            },
        },
    )
    .map_err(|error| failed(error, &opened.engine))?;
    match printer.format() {
        Format::Json => printer.document(&AnswerDocument {
            base: opened.base.name(),
            adapter: args.adapter.name(),
            base_dtype: opened.engine.place().1.to_string(),
            device: model.device.to_string(),
            text: &made.text,
            tokens: made.tokens.len(),
            token_ids: &made.tokens,
            prompt_tokens: prompt.len(),
            finish_reason: made.finish.name(),
            seed,
            prompt_seconds: made.prompt_time.as_secs_f64(),
            tokens_per_second: made.tokens_per_second(),
        }),
        Format::Text => {
            printer.data(&"");
            printer.note(&note(&made, prompt.len(), seed));
        }
    }
    Ok(())
}

/// Writes a piece of text at once. What could command a terminal is shown as U+FFFD there;
/// files and pipes get the text as it is.
fn write_piece(out: &mut (impl Write + ?Sized), piece: &str, terminal: bool) -> io::Result<()> {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    if terminal && piece.contains(commands) {
        out.write_all(piece.replace(commands, "\u{fffd}").as_bytes())?;
    } else {
        out.write_all(piece.as_bytes())?;
    }
    out.flush()
}

/// How tokens are chosen, and the seed where they are drawn.
fn sampling(args: &GenerateArgs) -> Result<(Sampling, Option<u64>), Failure> {
    if args.greedy {
        return Ok((Sampling::Greedy, None));
    }
    // Such as JavaScript reads without loss from JSON.
    let seed = args.seed.unwrap_or_else(|| os_rng().next_u64() >> 11);
    let (positive, greedy) = match args.temperature {
        None => (TEMPERATURE, false),
        Some(Temperature::Positive(temperature)) => (temperature, false),
        Some(Temperature::Greedy) => (TEMPERATURE, true),
    };
    // Built in any case: it checks the other options.
    let random =
        Sampling::random(positive, args.top_k, args.top_p.unwrap_or(TOP_P), seed).map_err(usage)?;
    if greedy {
        return Ok((Sampling::Greedy, None));
    }
    Ok((random, Some(seed)))
}

fn failed(error: GenerateError, engine: &Engine) -> Failure {
    if let GenerateError::Decode(DecodeError::Positions { got, .. }) = error {
        return data(anyhow!(
            "the prompt has {got} tokens, the base takes {}: shorten the prompt",
            engine.max_tokens()
        ));
    }
    data(error)
}

/// A line on the answer: its length, why it ended, its speed and seed.
fn note(made: &Generated, prompt: usize, seed: Option<u64>) -> String {
    let why = match made.finish {
        Finish::End => "the model ended it",
        Finish::Stop => "a stop text came",
        Finish::Length => "as many as asked for",
        Finish::Positions => "the base takes no more",
        Finish::Interrupted => "nobody reads any more",
    };
    let speed = made
        .tokens_per_second()
        .map(|speed| format!(", {speed:.1} tokens/s"))
        .unwrap_or_default();
    let seed = seed
        .map(|seed| format!(", seed {seed}"))
        .unwrap_or_default();
    // A line apart from the answer, where both are on one terminal.
    let gap = if stderr_is_rich() { "\n" } else { "" };
    format!(
        "{gap}{} tokens after a prompt of {prompt} ({why}){speed}{seed}",
        made.tokens.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_is_positive_or_greedy() {
        assert_eq!("0.8".parse(), Ok(Temperature::Positive(0.8)));
        for greedy in ["greedy", "0", "-0.0"] {
            assert_eq!(greedy.parse(), Ok(Temperature::Greedy), "{greedy:?}");
        }
        for bad in ["", "-1", "NaN", "inf", "off"] {
            assert_eq!(bad.parse::<Temperature>(), Err(TemperatureError), "{bad:?}");
        }
    }

    #[test]
    fn a_terminal_is_not_commanded_and_a_pipe_gets_the_text() {
        let written = |terminal| {
            let mut out = Vec::new();
            write_piece(&mut out, "a\u{1b}[2Jb\n\tc\u{9b}", terminal).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(false), "a\u{1b}[2Jb\n\tc\u{9b}");
        assert_eq!(written(true), "a\u{fffd}[2Jb\n\tc\u{fffd}");
    }
}
