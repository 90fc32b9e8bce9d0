//! From the prompt to its tokens.

use std::io::{self, Read};

use anyhow::{Context, anyhow};
use fedlora_data::{TextPipeline, Turn};
use fedlora_shell::{Failure, Printer};

use crate::cli::exits::data;

/// Longest prompt that is read from standard input, in bytes.
const MAX_PROMPT: u64 = 4 << 20;

/// The prompt: the argument, or standard input where that is `-`.
pub(super) fn text(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    io::stdin()
        .take(MAX_PROMPT)
        .read_to_string(&mut text)
        .context("the prompt on standard input is not readable as UTF-8 text")
        .map_err(data)?;
    // The line's end that a shell or an editor puts there.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// The prompt's tokens: a user's turn as the chat template has it, or plain text.
pub(super) fn tokens(
    text: &str,
    system: Option<&str>,
    raw: bool,
    pipeline: &TextPipeline,
    printer: &Printer,
) -> Result<Vec<u32>, Failure> {
    let chat = !raw && pipeline.has_template();
    if !chat {
        if system.is_some() {
            return Err(data(anyhow!(
                "the base has no chat template, and so no place for a system turn"
            ))
            .with_hint(
                "put the text of --system into --prompt, or use the instruction-tuned variant \
                 of the base"
                    .to_owned(),
            ));
        }
        if !raw {
            printer.note(&"note: the base has no chat template: the prompt is continued as text");
        }
        let tokens = pipeline.encode_text(text).map_err(data)?;
        if tokens.is_empty() {
            return Err(data(anyhow!("the prompt is empty: give some text")));
        }
        return Ok(tokens);
    }
    if text.trim().is_empty() {
        return Err(data(anyhow!("the prompt is empty: give some text"))
            .with_hint("use --raw to continue an empty text"));
    }
    let mut turns = Vec::new();
    for (role, content) in [("system", system), ("user", Some(text))] {
        let Some(content) = content else { continue };
        pipeline
            .refuse_control(content, &format!("the {role} turn"))
            .map_err(|error| data(error).with_hint("give the whole text with --raw"))?;
        turns.push(Turn::new(role, content));
    }
    pipeline.prompt(&turns).map_err(data)
}
