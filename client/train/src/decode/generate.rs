//! Continuing a prompt: one token after another, until an end token, a stop text or a limit.
//!
//! Uses a [`Decoder`] for the model and a [`TextPipeline`] for the text. Nothing here knows
//! the wire, the rounds or the transport, and no error or `Debug` shows what was said.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::{DecodeError, Decoder};
use fedlora_data::TextPipeline;
use fedlora_data::tokenizer::TokenizerError;

use super::sampling::{Sampler, Sampling, SamplingError};
use super::stops::{Held, StopText};

/// When to stop and how to choose.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate; 0 generates none.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens that end the text. They are no part of it.
    pub ends: BTreeSet<u32>,
    /// Texts that end it, likewise.
    pub stops: Vec<StopText>,
}

/// Why no more was generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended the text.
    End,
    /// A stop text came.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The model has no position for another token.
    Positions,
    /// Whoever watched said so.
    Interrupted,
}

impl Finish {
    /// Its name in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Positions => "positions",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What came of it.
#[derive(Clone)]
pub struct Generated {
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Their text, up to a stop text.
    pub text: String,
    /// Why there are no more.
    pub finish: Finish,
    /// How long the prompt took.
    pub prompt_time: Duration,
    /// How long the tokens after the first took.
    pub time: Duration,
}

impl Generated {
    /// Tokens a second once the prompt is read; `None` where there is no second token.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let later = self.tokens.len().saturating_sub(1);
        (later > 0).then(|| later as f64 / self.time.as_secs_f64().max(1e-9))
    }
}

impl std::fmt::Debug for Generated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generated")
            .field("tokens", &self.tokens.len())
            .field("finish", &self.finish)
            .finish_non_exhaustive()
    }
}

/// Continues `prompt`. `show` is given the text piece by piece, never within a character and
/// never a part of a stop text, and may end it.
///
/// # Errors
/// A prompt that is empty or too long for the model, or logits that are not numbers.
pub fn generate(
    mut decoder: Decoder,
    pipeline: &TextPipeline,
    prompt: &[u32],
    options: &GenerateOptions,
    show: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, GenerateError> {
    let mut sampler = Sampler::new(options.sampling);
    let mut stream = pipeline.stream();
    let mut held = Held::new(&options.stops);
    let begun = Instant::now();
    let mut logits = decoder.extend(prompt)?;
    let prompt_time = begun.elapsed();
    let begun = Instant::now();
    let mut made = Generated {
        tokens: Vec::new(),
        text: String::new(),
        finish: Finish::Length,
        prompt_time,
        time: Duration::ZERO,
    };
    while made.tokens.len() < options.max_tokens {
        let token = sampler.next(&logits)?;
        if options.ends.contains(&token) {
            made.finish = Finish::End;
            break;
        }
        made.tokens.push(token);
        let (text, stopped) = held.push(&stream.push(token)?);
        made.text.push_str(&text);
        if !text.is_empty() && show(&text).is_break() {
            made.finish = Finish::Interrupted;
            break;
        }
        if stopped {
            made.finish = Finish::Stop;
            break;
        }
        if made.tokens.len() == options.max_tokens {
            break;
        }
        if decoder.room() == 0 {
            made.finish = Finish::Positions;
            break;
        }
        logits = decoder.extend(&[token])?;
    }
    made.time = begun.elapsed();
    if !matches!(made.finish, Finish::Stop | Finish::Interrupted) {
        let (text, stopped) = held.push(&stream.finish()?);
        let text = if stopped { text } else { text + &held.rest() };
        if stopped {
            made.finish = Finish::Stop;
        }
        made.text.push_str(&text);
        if !text.is_empty() {
            // It is over either way.
            let _ = show(&text);
        }
    }
    Ok(made)
}

/// A prompt that cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The model cannot take it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// No token can be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A token that the tokenizer does not have.
    #[error("the model gave a token that its tokenizer does not have: {0}")]
    Tokenizer(#[from] TokenizerError),
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
