//! The shape of a Llama-class model, and `config.json` of a Hugging Face folder.

mod parse;
mod rope;
mod variation;
mod write;

use std::path::{Path, PathBuf};

use fedlora_adapter::Target;
use fedlora_adapter::tensors::{self, TensorFileError};
pub use rope::{Llama3Scaling, RopeScaling, YarnScaling};
use serde_json::{Map, Value};
pub use variation::{Activation, Multipliers, Variation};

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
    /// Qwen3: Llama with norms on queries and keys.
    Qwen3,
    /// SmolLM3: Llama with blocks that do not rotate.
    SmolLm3,
    /// Granite 3 and later: Llama with multipliers.
    Granite,
    /// Gemma 3, text alone: GeGLU, norms on all sides, and blocks of two kinds.
    Gemma3,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::SmolLm3,
        Self::Granite,
        Self::Gemma3,
    ];

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
            Self::Granite => "granite",
            Self::Gemma3 => "gemma3_text",
        }
    }

    /// The class of Transformers that computes the logits.
    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
            Self::Granite => "GraniteForCausalLM",
            Self::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    /// What a checkpoint of Transformers stores of a norm's weight less than norms multiply with:
    /// Gemma's multiply with `1 + w`.
    pub(crate) fn norm_offset(self) -> f32 {
        match self {
            Self::Gemma3 => 1.0,
            _ => 0.0,
        }
    }
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
    pub rope_scaling: Option<RopeScaling>,
    /// Keys that a token attends to, its own included; all that precede it where `None`. Blocks
    /// that [`Variation::unwindowed`] names have no window.
    pub sliding_window: Option<usize>,
    /// Whether the q, k and v projections add a bias.
    pub qkv_bias: bool,
    /// What the blocks compute otherwise than Llama's.
    pub variation: Variation,
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

    /// The shape of which the rotary frequencies of windowed blocks are made, where those have
    /// frequencies of their own.
    pub(crate) fn local_rope(&self) -> Option<Self> {
        self.variation.local_theta.map(|rope_theta| Self {
            rope_theta,
            rope_scaling: None,
            ..self.clone()
        })
    }

    /// The sliding window of a block, if it has one.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let windowed = |_: &usize| !self.variation.unwindowed.contains(&layer);
        self.sliding_window.filter(windowed)
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
    /// q k v, the norms of queries and keys, and those of what attention and the feed-forward part
    /// give, where there are any; last norm; and the output layer where it is not tied.
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
                    let second = match self.variation.output_norms {
                        true => "pre_feedforward_layernorm",
                        false => "post_attention_layernorm",
                    };
                    push(second, vec![hidden]);
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
            if self.variation.qk_norm {
                for name in ["q_norm", "k_norm"] {
                    specs.push((
                        format!("model.layers.{layer}.self_attn.{name}.weight"),
                        vec![self.head_dim],
                    ));
                }
            }
            if self.variation.output_norms {
                for name in ["post_attention_layernorm", "post_feedforward_layernorm"] {
                    specs.push((format!("model.layers.{layer}.{name}.weight"), vec![hidden]));
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
#[path = "config/architecture_tests.rs"]
mod architecture_tests;
#[cfg(test)]
#[path = "config_tests.rs"]
pub(crate) mod tests;
