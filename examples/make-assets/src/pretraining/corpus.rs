//! The pretraining text as token sequences, one a document.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tokenizers::Tokenizer;

/// Documents as tokens, each from the beginning-of-text to the end-of-text token.
pub struct Corpus {
    /// What is trained on.
    pub train: Vec<Vec<u32>>,
    /// What the loss is stated on. No document of it shares a record with training.
    pub validation: Vec<Vec<u32>>,
    /// Tokens of the vocabulary, special ones included.
    pub vocab_size: usize,
    /// The token that begins a text.
    pub bos: u32,
    /// The token that ends one.
    pub end_of_text: u32,
    /// The token that ends a turn of a chat.
    pub end_of_turn: u32,
}

#[derive(Deserialize)]
struct Line {
    split: String,
    text: String,
}

impl Corpus {
    /// Reads JSON Lines with `split` and `text`, and tokenizes them.
    pub fn load(corpus: &Path, tokenizer: &Path) -> Result<Self> {
        let tokenizer = Tokenizer::from_file(tokenizer)
            .map_err(|error| anyhow!("{}: {error}", tokenizer.display()))?;
        let id = |token: &str| {
            tokenizer
                .token_to_id(token)
                .with_context(|| format!("the tokenizer has no {token}"))
        };
        let mut made = Self {
            train: Vec::new(),
            validation: Vec::new(),
            vocab_size: tokenizer.get_vocab_size(true),
            bos: id("<|begin_of_text|>")?,
            end_of_text: id("<|end_of_text|>")?,
            end_of_turn: id("<|eot_id|>")?,
        };
        let text = std::fs::read_to_string(corpus)
            .with_context(|| format!("cannot read {}", corpus.display()))?;
        for (number, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("{}, line {}", corpus.display(), number + 1))?;
            let encoded = tokenizer
                .encode_fast(line.text, false)
                .map_err(|error| anyhow!("{}, line {}: {error}", corpus.display(), number + 1))?;
            let mut tokens = vec![made.bos];
            tokens.extend_from_slice(encoded.get_ids());
            tokens.push(made.end_of_text);
            match line.split.as_str() {
                "validation" => made.validation.push(tokens),
                _ => made.train.push(tokens),
            }
        }
        Ok(made)
    }
}
