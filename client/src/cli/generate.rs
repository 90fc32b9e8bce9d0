//! `fedlora generate`: continues a prompt, printed as it comes.

use std::io::{self, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use fedlora_data::{TextPipeline, Turn};
use fedlora_model::WeightKind;
use fedlora_protocol::crypto::os_rng;
use fedlora_train::decode::{
    Finish, GenerateError, GenerateOptions, Generated, Sampling, StopText, generate,
};
use fedlora_train::{DecodeError, Device, Engine};
use rand::Rng;
use serde::Serialize;

use super::args::Format;
use super::commands::print_json;
use super::local::{self, data, usage};
use super::{Failure, threads};

/// Longest prompt that is read, in bytes.
const LONGEST_PROMPT: u64 = 4 << 20;
/// What is drawn from where nothing else is asked for: the model's own distribution, without
/// its improbable end.
const TEMPERATURE: f64 = 0.8;
const TOP_P: f64 = 0.95;

/// What it needs.
#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// The base model: a Hugging Face folder, a GGUF file or a name on the hub.
    #[arg(long, env = "FEDLORA_BASE")]
    pub(crate) base: String,
    /// A PEFT adapter made for it.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// What to answer or, with --raw, to continue; - reads it from standard input.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) prompt: String,
    /// What the assistant is told first.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub(crate) system: Option<String>,
    /// Continue the prompt as it is, without the chat template.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Most tokens to generate.
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub(crate) max_tokens: usize,
    /// A text that ends the answer, and is no part of it; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<StopText>,
    /// Always take the likeliest token.
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k", "seed"])]
    pub(crate) greedy: bool,
    /// Divides the logits: below 1 likely tokens become likelier; 0 is --greedy [default: 0.8].
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Draw from the fewest tokens that together have this probability [default: 0.95].
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Draw from this many of the likeliest tokens [default: from all].
    #[arg(long)]
    pub(crate) top_k: Option<usize>,
    /// Seed of the draws; by default a random one, which is shown.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where to compute: cpu or cuda:N.
    #[arg(long, env = "FEDLORA_DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
    /// How the base is held in memory: f32, bf16, q8 or q4 [default: f32, bf16 on a GPU].
    #[arg(long, value_name = "KIND")]
    pub(crate) base_dtype: Option<WeightKind>,
    /// Threads that compute [default: one a processor].
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
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
pub(super) fn run(args: &GenerateArgs, format: Format, quiet: bool) -> Result<(), Failure> {
    let (sampling, seed) = sampling(args)?;
    let max_tokens = NonZeroUsize::new(args.max_tokens)
        .ok_or_else(|| usage(anyhow!("--max-tokens is 0: give at least 1")))?;
    threads::limit(args.threads)?;
    let text = prompt_text(&args.prompt)?;
    let opened = local::open(
        &args.base,
        args.adapter.as_deref(),
        args.base_dtype,
        &args.device,
        quiet,
    )?;
    let prompt = tokens(args, &text, &opened.pipeline, quiet)?;
    let decoder = opened.engine.decoder(opened.adapter.as_ref());
    let options = GenerateOptions {
        max_tokens,
        sampling,
        ends: opened.pipeline.end_tokens().collect(),
        stops: args.stop.clone(),
    };
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    let made = generate(
        decoder.map_err(data)?,
        &opened.pipeline,
        &prompt,
        &options,
        &mut |piece| match format {
            Format::Json => ControlFlow::Continue(()),
            // Whoever read is gone.
            Format::Text => match write_piece(&mut out, piece, terminal) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            },
        },
    )
    .map_err(|error| failed(error, &opened.engine))?;
    drop(out);
    match format {
        Format::Json => print_json(&Document {
            schema_version: 1,
            base: opened.base.name(),
            adapter: args
                .adapter
                .as_ref()
                .map(|folder| folder.display().to_string()),
            base_dtype: opened.engine.place().1.to_string(),
            device: args.device.to_string(),
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
            // Ends the line; what comes after a text is not part of it where it is piped on.
            let _ = writeln!(io::stdout());
            if !quiet {
                say(&made, prompt.len(), seed);
            }
        }
    }
    Ok(())
}

/// Writes a piece of text at once. What could command a terminal is shown as U+FFFD there;
/// files and pipes get the text as it is.
fn write_piece(out: &mut impl Write, piece: &str, terminal: bool) -> io::Result<()> {
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
    let sampling = Sampling::random(
        args.temperature.unwrap_or(TEMPERATURE),
        args.top_k,
        args.top_p.unwrap_or(TOP_P),
        seed,
    )
    .map_err(usage)?;
    Ok((sampling, (sampling != Sampling::Greedy).then_some(seed)))
}

fn prompt_text(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    io::stdin()
        .take(LONGEST_PROMPT)
        .read_to_string(&mut text)
        .context("the prompt on standard input is not readable as UTF-8 text")
        .map_err(data)?;
    // The line's end that a shell or an editor puts there.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// The prompt's tokens: a user's turn as the chat template has it, or plain text.
fn tokens(
    args: &GenerateArgs,
    text: &str,
    pipeline: &TextPipeline,
    quiet: bool,
) -> Result<Vec<u32>, Failure> {
    let chat = !args.raw && pipeline.has_template();
    if !chat {
        if args.system.is_some() {
            return Err(data(anyhow!(
                "the base has no chat template, so that --system has no place: put it into \
                 --prompt, or use the instruction-tuned variant of the base"
            )));
        }
        if !args.raw && !quiet {
            eprintln!("note: the base has no chat template: the prompt is continued as it is");
        }
        let tokens = pipeline.encode_text(text).map_err(data)?;
        if tokens.is_empty() {
            return Err(data(anyhow!("the prompt is empty: give some text")));
        }
        return Ok(tokens);
    }
    if text.trim().is_empty() {
        return Err(data(anyhow!(
            "the prompt is empty: give some text, or --raw to continue nothing"
        )));
    }
    let mut turns = Vec::new();
    for (role, content) in [("system", args.system.as_deref()), ("user", Some(text))] {
        let Some(content) = content else { continue };
        pipeline
            .refuse_control(content, &format!("the {role} turn"))
            .map_err(|error| data(anyhow!("{error}, or give the whole text with --raw")))?;
        turns.push(Turn {
            role,
            content: content.to_owned(),
        });
    }
    pipeline.prompt(&turns).map_err(data)
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

/// What there is to know about the answer, on standard error.
fn say(made: &Generated, prompt: usize, seed: Option<u64>) {
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
    let gap = if io::stderr().is_terminal() { "\n" } else { "" };
    eprintln!(
        "{gap}{} tokens after a prompt of {prompt} ({why}){speed}{seed}",
        made.tokens.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

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
