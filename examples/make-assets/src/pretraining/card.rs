//! The base model's card and generation settings.

use fedlora_common::digest::Digest;
use fedlora_model::BaseWeights;

use super::corpus::Corpus;
use super::entropy::Baselines;
use super::training::Options;

/// What the card states.
pub struct Facts<'a> {
    /// The model as written.
    pub weights: &'a BaseWeights,
    /// Its digest.
    pub digest: Digest,
    /// Its text.
    pub corpus: &'a Corpus,
    /// How it was trained.
    pub options: &'a Options,
    /// The yardsticks.
    pub baselines: Baselines,
    /// Optimizer steps done.
    pub steps: usize,
    /// Validation loss of the model as written, in nats a token.
    pub loss: f64,
    /// Wall time of the training in seconds.
    pub seconds: f64,
    /// The card of the weights that training went on from.
    pub earlier: Option<&'a str>,
}

/// `generation_config.json`.
pub fn generation_config(corpus: &Corpus) -> String {
    let value = serde_json::json!({
        "bos_token_id": corpus.bos,
        "eos_token_id": [corpus.end_of_turn, corpus.end_of_text],
        "do_sample": false,
    });
    format!("{value:#}\n")
}

/// `README.md`.
pub fn readme(facts: &Facts<'_>) -> String {
    let config = facts.weights.config();
    let count = |documents: &[Vec<u32>]| documents.iter().map(Vec::len).sum::<usize>();
    let options = facts.options;
    let clock = if facts.steps < options.steps {
        "\nThe schedule was ended by the clock, on a machine that did other work as well: the same steps
without a clock come close to this model, not to its bits.\n"
    } else {
        ""
    };
    let resumed = if facts.earlier.is_some() {
        " \\\n    --resume"
    } else {
        ""
    };
    let earlier = facts.earlier.map_or_else(String::new, earlier_stretch);
    format!(
        "---
language: en
library_name: transformers
pipeline_tag: text-generation
---

# fedlora's embedded base model

A small Llama for trying fedlora without a download. It was pretrained by
`examples/make-assets/src/bin/make_base.rs`, with the client's own model code and all parameters trained,
on the prose of MITRE's CWE catalogue: weaknesses, categories and views, without any
vulnerability report and without any held-out answer of the data beside it. It knows that text
and little else; it is not a model to rely on.

| | |
|---|---|
| parameters | {parameters} |
| architecture | Llama 3: {layers} blocks, hidden {hidden}, feed-forward {inner}, {heads} query and {kv} key-value heads of {dim}, tied embeddings, RoPE theta {theta} |
| vocabulary | {vocab} (byte-level BPE) |
| weights | bf16, BLAKE3 digest of configuration and values `{digest}` |
| training text | {train} tokens in {documents} documents |
| validation text | {validation} tokens in {validation_documents} documents of records that training does not see |
| training | {steps} steps of {batch} windows of {window} tokens, AdamW (0.9, 0.95, decay 0.1), peak rate {rate}, cosine, seed {seed} |
| time | {minutes:.0} minutes on {threads} cores |

## Validation loss

Nats a token on the same validation tokens; the n-gram models are counted on the training text.

| model | nats a token | perplexity |
|---|---|---|
| unigram (add one) | {unigram:.3} | {unigram_perplexity:.1} |
| bigram (Witten-Bell) | {bigram:.3} | {bigram_perplexity:.1} |
| this model | {loss:.3} | {perplexity:.1} |

## Making it again

```
cargo run --release --bin make_data -- --catalogue cwec_v4.14.xml
cargo run --profile pretrain --bin make_base -- --steps {steps} --batch {batch} --window {window} --rate {rate} \\
    --hidden {hidden} --layers {layers} --inner {inner} --threads {threads} --seed {seed}{resumed}
```
{earlier}
{clock}
The text is MITRE's: its copyright and terms stand in `../data/README.md`.
",
        parameters = facts.weights.parameters(),
        layers = config.num_hidden_layers,
        hidden = config.hidden_size,
        inner = config.intermediate_size,
        heads = config.num_attention_heads,
        kv = config.num_key_value_heads,
        dim = config.head_dim,
        theta = config.rope_theta,
        vocab = config.vocab_size,
        digest = facts.digest,
        train = count(&facts.corpus.train),
        documents = facts.corpus.train.len(),
        validation = count(&facts.corpus.validation),
        validation_documents = facts.corpus.validation.len(),
        steps = facts.steps,
        batch = options.batch,
        window = options.window,
        rate = options.rate,
        seed = options.seed,
        threads = options.threads,
        minutes = facts.seconds / 60.0,
        unigram = facts.baselines.unigram,
        unigram_perplexity = facts.baselines.unigram.exp(),
        bigram = facts.baselines.bigram,
        bigram_perplexity = facts.baselines.bigram.exp(),
        loss = facts.loss,
        perplexity = facts.loss.exp(),
    )
}

/// How the weights that training went on from were made, out of their own card.
fn earlier_stretch(card: &str) -> String {
    let rows: Vec<&str> = card
        .lines()
        .filter(|line| {
            [
                "| weights |",
                "| training |",
                "| time |",
                "| this model |",
                "| before: ",
            ]
            .iter()
            .any(|start| line.starts_with(start))
        })
        .collect();
    format!(
        "\nIt went on from weights that the same program had made before:\n\n| | |\n|---|---|\n{}\n",
        rows.join("\n")
    )
}
