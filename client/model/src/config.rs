//! The shape of a Llama-class model, and `config.json` of a Hugging Face folder.

mod parse;

use std::path::{Path, PathBuf};

use fedlora_adapter::Target;
use fedlora_adapter::tensors::{self, TensorFileError};
use serde_json::{Map, Value, json};

const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A family of checkpoints that run on the one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Architecture {
    /// Llama 2, 3, 3.1 and 3.2, and what calls itself Llama, such as SmolLM2.
    #[default]
    Llama,
    /// Mistral: Llama with, in its first version, a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: Llama with biases on q, k and v.
    Qwen2,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Llama, Self::Mistral, Self::Qwen2];

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
        }
    }

    /// The class of Transformers that computes the logits.
    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
        }
    }
}

/// Llama 3.1's stretching of the rotary frequencies (`rope_scaling` of type `llama3`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3Scaling {
    /// By how much low frequencies are slowed.
    pub factor: f64,
    /// Wavelengths above `original / low_freq_factor` are low frequencies.
    pub low_freq_factor: f64,
    /// Wavelengths below `original / high_freq_factor` are left alone.
    pub high_freq_factor: f64,
    /// The positions that the model was first trained with.
    pub original_max_position_embeddings: usize,
}

/// The shape of a Llama model. All sizes are counts of features, heads, blocks or tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// The model family, which decides on biases and windows.
    pub architecture: Architecture,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Number of transformer blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; each serves the same number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: Option<Llama3Scaling>,
    /// Keys that a token attends to, its own included; all that precede it where `None`.
    pub sliding_window: Option<usize>,
    /// Whether the q, k and v projections add a bias.
    pub qkv_bias: bool,
    /// Whether the output layer is the embedding.
    pub tie_word_embeddings: bool,
    /// The token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// The token that ends one (the first, where a file lists several).
    pub eos_token_id: Option<u32>,
}

impl LlamaConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// [`ModelConfigError`], which names each setting that the forward pass does not implement.
    pub fn load(dir: &Path) -> Result<Self, ModelConfigError> {
        let path = dir.join("config.json");
        let bytes = tensors::read_bounded(&path, MAX_CONFIG_BYTES)?;
        let object: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|source| ModelConfigError::Json {
                path: path.clone(),
                source,
            })?;
        parse::config(&path, &object)
    }

    /// The text of a `config.json` that Transformers reads; `dtype` names the type on disk.
    pub fn to_json(&self, dtype: &str) -> String {
        let mut value = json!({
            "architectures": [self.architecture.class()],
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": self.architecture.model_type(),
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": self.rope_scaling.map(|scaling| json!({
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_max_position_embeddings,
            })),
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        match self.architecture {
            Architecture::Llama => {
                value["attention_bias"] = json!(self.qkv_bias);
                value["mlp_bias"] = json!(false);
                value["pretraining_tp"] = json!(1);
            }
            Architecture::Mistral => value["sliding_window"] = json!(self.sliding_window),
            Architecture::Qwen2 => {
                value["use_sliding_window"] = json!(self.sliding_window.is_some());
                value["sliding_window"] = json!(self.sliding_window);
                // Blocks from this one on have the window.
                value["max_window_layers"] = match self.sliding_window {
                    Some(_) => json!(0),
                    None => json!(self.num_hidden_layers),
                };
            }
        }
        format!("{value:#}\n")
    }

    /// (in, out) features of a projection.
    pub fn projection(&self, target: Target) -> (usize, usize) {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        match target {
            Target::Q => (hidden, queries),
            Target::K | Target::V => (hidden, keys),
            Target::O => (queries, hidden),
            Target::Gate | Target::Up => (hidden, inner),
            Target::Down => (inner, hidden),
        }
    }

    /// Every tensor of a checkpoint, in the order in which [`super::Llama`] holds them:
    /// embedding; by block input norm, q k v o, second norm, gate up down, and the biases of
    /// q k v where there are any; last norm; and the output layer where it is not tied.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let hidden = self.hidden_size;
        let vocab = vec![self.vocab_size, hidden];
        let mut specs = vec![("model.embed_tokens.weight".to_owned(), vocab.clone())];
        for layer in 0..self.num_hidden_layers {
            let mut push = |path: &str, shape| {
                specs.push((format!("model.layers.{layer}.{path}.weight"), shape));
            };
            push("input_layernorm", vec![hidden]);
            for target in Target::ALL {
                if target == Target::Gate {
                    push("post_attention_layernorm", vec![hidden]);
                }
                let (input, output) = self.projection(target);
                push(target.path(), vec![output, input]);
            }
            if self.qkv_bias {
                for target in [Target::Q, Target::K, Target::V] {
                    let path = target.path();
                    specs.push((
                        format!("model.layers.{layer}.{path}.bias"),
                        vec![self.projection(target).1],
                    ));
                }
            }
        }
        specs.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !self.tie_word_embeddings {
            specs.push(("lm_head.weight".to_owned(), vocab));
        }
        specs
    }
}

/// A configuration that is malformed, or of a model that is not supported.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The file is not a JSON object.
    #[error("{}: {source}", path.display())]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A setting that is missing, wrong or not supported.
    #[error("{}: '{key}' is {got}: expected {expected}", path.display())]
    Setting {
        /// Path of the file.
        path: PathBuf,
        /// Name of the setting.
        key: String,
        /// Its value, cut at 80 characters.
        got: String,
        /// The values that are accepted, in words.
        expected: &'static str,
    },
}

#[cfg(test)]
#[path = "config_tests.rs"]
pub(crate) mod tests;
