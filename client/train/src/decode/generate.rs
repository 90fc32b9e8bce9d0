//! Continuing a prompt: one token after another, until an end token, a stop text or a limit.
//!
//! Uses a [`Decoder`] for the model and a [`TextPipeline`] for the text. No error and no `Debug`
//! shows prompt or text.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fedlora_data::TextPipeline;
use fedlora_data::tokenizer::TokenizerError;

use crate::decode::sampling::{Sampler, Sampling, SamplingError};
use crate::decode::sequence::{DecodeError, Decoder};
use crate::decode::stops::{HeldText, StopText};

/// When to stop and how to choose.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: NonZeroUsize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens that end the text without being part of it.
    pub ends: BTreeSet<u32>,
    /// Texts that end the text without being part of it.
    pub stops: Vec<StopText>,
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave an end token.
    End,
    /// The text reached a stop text.
    Stop,
    /// [`GenerateOptions::max_tokens`] tokens are generated.
    Length,
    /// The model has no position for another token.
    Positions,
    /// The caller's `show` ended it.
    Interrupted,
}

impl Finish {
    /// The name in JSON output.
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

/// A generated text. `Debug` shows neither tokens nor text.
#[derive(Clone)]
pub struct Generated {
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Their text, up to a stop text.
    pub text: String,
    /// Why generation ended.
    pub finish: Finish,
    /// Time that the prompt's tokens took.
    pub prompt_time: Duration,
    /// Time that the generated tokens took, the first one's logits excepted.
    pub time: Duration,
}

impl Generated {
    /// Tokens a second after the prompt; `None` for fewer than two tokens.
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

/// Continues `prompt`. `show` receives the text piece by piece and may end it. A piece holds
/// whole characters and no part of a stop text.
///
/// # Errors
/// An empty prompt, one that is too long for the model, or logits that are not finite.
pub fn generate(
    mut decoder: Decoder,
    pipeline: &TextPipeline,
    prompt: &[u32],
    options: &GenerateOptions,
    show: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated, GenerateError> {
    let mut sampler = Sampler::new(options.sampling);
    let mut stream = pipeline.stream();
    let mut held = HeldText::new(&options.stops);
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
    while made.tokens.len() < options.max_tokens.get() {
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
        if made.tokens.len() == options.max_tokens.get() {
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
            // The text is complete, whatever the caller answers.
            let _ = show(&text);
        }
    }
    Ok(made)
}

/// A prompt that cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The model has no room for the prompt, or it is empty.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Logits that no token can be chosen from.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A token outside the tokenizer's vocabulary.
    #[error("the model gave a token that its tokenizer does not have: {0}")]
    Tokenizer(#[from] TokenizerError),
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
