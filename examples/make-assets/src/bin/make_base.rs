//! Pretrains the embedded base model on the catalogue's prose, with the client's own model
//! code and all parameters trained, and writes it as a Hugging Face folder with its card.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use fedlora_adapter::tensors::{FloatType, write_atomic};
use fedlora_make_assets::pretraining::corpus::Corpus;
use fedlora_make_assets::pretraining::{card, entropy, init, training};
use fedlora_model::{Architecture, BaseWeights, LlamaConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pretrain the embedded base model on the catalogue's prose
#[derive(Parser)]
struct Arguments {
    /// The text, JSON Lines with `split` (train or validation) and `text`
    #[arg(long, value_name = "FILE", default_value = "target/cwe-corpus.jsonl")]
    corpus: PathBuf,
    /// The model's folder: holds tokenizer.json, receives the rest
    #[arg(long, value_name = "DIR", default_value = "examples/assets/base")]
    base: PathBuf,
    /// Optimizer steps
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Windows in a step
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens in a window
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Width of the residual stream
    #[arg(long, default_value_t = 192)]
    hidden: usize,
    /// Blocks
    #[arg(long, default_value_t = 6)]
    layers: usize,
    /// Width of the feed-forward part
    #[arg(long, default_value_t = 512)]
    inner: usize,
    /// Parts of a batch that are computed at the same time
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Minutes after which the schedule ends even where steps are left
    #[arg(long, default_value_t = 600.0)]
    minutes: f64,
    /// Go on from the weights that are in --base, with a schedule of its own
    #[arg(long)]
    resume: bool,
    /// Seed of the initial weights and of the order of windows
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let corpus = Corpus::load(&arguments.corpus, &arguments.base.join("tokenizer.json"))?;
    if corpus.train.is_empty() || corpus.validation.is_empty() {
        bail!(
            "{} needs lines of both splits, train and validation",
            arguments.corpus.display()
        );
    }
    let heads = arguments.hidden / 32;
    let config = LlamaConfig {
        architecture: Architecture::Llama,
        vocab_size: corpus.vocab_size,
        hidden_size: arguments.hidden,
        intermediate_size: arguments.inner,
        num_hidden_layers: arguments.layers,
        num_attention_heads: heads,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 1024,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        variation: Default::default(),
        tie_word_embeddings: true,
        bos_token_id: Some(corpus.bos),
        eos_token_id: Some(corpus.end_of_turn),
    };
    let (initial, earlier) = if arguments.resume {
        let card = std::fs::read_to_string(arguments.base.join("README.md"))
            .context("the card of the weights to resume from")?;
        (BaseWeights::load(&arguments.base)?, Some(card))
    } else {
        (init::weights(config, arguments.seed), None)
    };
    eprintln!(
        "{} parameters; {} training and {} validation tokens",
        initial.parameters(),
        corpus.train.iter().map(Vec::len).sum::<usize>(),
        corpus.validation.iter().map(Vec::len).sum::<usize>(),
    );
    let baselines = entropy::baselines(&corpus);
    eprintln!(
        "validation, nats a token: unigram {:.3}, bigram {:.3}",
        baselines.unigram, baselines.bigram
    );

    let options = training::Options {
        steps: arguments.steps,
        batch: arguments.batch,
        window: arguments.window,
        rate: arguments.rate,
        threads: arguments.threads,
        seed: arguments.seed,
        seconds: arguments.minutes * 60.0,
    };
    let mut saved = Instant::now();
    let outcome = training::pretrain(&initial, &corpus, &options, |progress, weights| {
        if progress.step % 10 == 0 || progress.validation.is_some() {
            let validation = progress
                .validation
                .map_or_else(String::new, |loss| format!(", validation {loss:.4}"));
            eprintln!(
                "step {}/{}: loss {:.4}{validation}, {:.0} tokens/s, {:.0} s",
                progress.step,
                options.steps,
                progress.loss,
                progress.tokens_per_second,
                started.elapsed().as_secs_f64()
            );
        }
        if saved.elapsed() > Duration::from_secs(60) {
            saved = Instant::now();
            weights().save(&arguments.base, FloatType::Bf16)?;
        }
        Ok(())
    })?;

    outcome.weights.save(&arguments.base, FloatType::Bf16)?;
    // What is on the disk is rounded to bf16: the card states that model's loss.
    let written = BaseWeights::load(&arguments.base)?;
    let loss = training::validation_loss(&written, &corpus)?;
    let generation = card::generation_config(&corpus);
    write_atomic(
        &arguments.base.join("generation_config.json"),
        generation.as_bytes(),
    )?;
    let text = card::readme(&card::Facts {
        weights: &written,
        digest: written.digest()?,
        corpus: &corpus,
        options: &options,
        steps: outcome.steps,
        baselines,
        loss,
        seconds: started.elapsed().as_secs_f64(),
        earlier: earlier.as_deref(),
    });
    let path = arguments.base.join("README.md");
    write_atomic(&path, text.as_bytes()).context("cannot write the card")?;
    println!("{text}");
    Ok(())
}
