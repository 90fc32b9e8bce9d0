//! The shape of a Llama-class model, and `config.json` of a Hugging Face folder.

use std::path::{Path, PathBuf};

use fedlora_common::adapter::Target;
use fedlora_common::adapter::tensors::{self, TensorFileError};
use serde_json::{Map, Value, json};

const MOST_CONFIG_BYTES: u64 = 1 << 20;

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
    /// The family.
    pub architecture: Architecture,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves the same number of query heads.
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
    /// Reads `config.json` in `dir`. What the forward pass does not implement is refused by
    /// name.
    pub fn load(dir: &Path) -> Result<Self, ModelConfigError> {
        let path = dir.join("config.json");
        let bytes = tensors::read_bounded(&path, MOST_CONFIG_BYTES)?;
        let object: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|source| ModelConfigError::Json {
                path: path.clone(),
                source,
            })?;
        Fields {
            path: &path,
            object: &object,
        }
        .config()
    }

    /// The text of a `config.json` that Transformers reads; `dtype` names the type on disk.
    pub fn to_json(&self, dtype: &str) -> String {
        let value = json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
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

/// The JSON object with the file it stands in, for errors.
struct Fields<'a> {
    path: &'a Path,
    object: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn config(&self) -> Result<LlamaConfig, ModelConfigError> {
        self.only("model_type", &[json!("llama")], true)?;
        self.only("hidden_act", &[json!("silu")], true)?;
        self.only("attention_bias", &[json!(false), Value::Null], false)?;
        self.only("mlp_bias", &[json!(false), Value::Null], false)?;
        self.only("quantization_config", &[Value::Null], false)?;
        self.rope_kind("rope_scaling")?;
        self.rope_kind("rope_parameters")?;
        let rope_theta = match self.nested("rope_parameters", "rope_theta") {
            Some(value) => self.as_number("rope_parameters", value)?,
            None => match self.object.get("rope_theta") {
                Some(value) => self.as_number("rope_theta", value)?,
                // What Transformers takes where a file says nothing.
                None => 10_000.0,
            },
        };
        let heads = self.size("num_attention_heads")?;
        let hidden_size = self.size("hidden_size")?;
        let config = LlamaConfig {
            architecture: Architecture::Llama,
            vocab_size: self.size("vocab_size")?,
            hidden_size,
            intermediate_size: self.size("intermediate_size")?,
            num_hidden_layers: self.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: self.size_or("num_key_value_heads", heads)?,
            head_dim: self.size_or("head_dim", hidden_size / heads)?,
            max_position_embeddings: self.size_or("max_position_embeddings", 2048)?,
            rms_norm_eps: match self.object.get("rms_norm_eps") {
                Some(value) => self.as_number("rms_norm_eps", value)?,
                None => 1e-6,
            },
            rope_theta,
            rope_scaling: None,
            sliding_window: None,
            qkv_bias: false,
            tie_word_embeddings: match self.object.get("tie_word_embeddings") {
                None | Some(Value::Null) => false,
                Some(value) => value
                    .as_bool()
                    .ok_or_else(|| self.refuse("tie_word_embeddings", "true or false"))?,
            },
            bos_token_id: self.token("bos_token_id"),
            eos_token_id: self.token("eos_token_id"),
        };
        if heads % config.num_key_value_heads != 0 {
            return Err(self.refuse("num_key_value_heads", "a divisor of num_attention_heads"));
        }
        if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
            return Err(self.refuse("head_dim", "an even number above 0"));
        }
        Ok(config)
    }

    fn refuse(&self, key: &str, expected: &'static str) -> ModelConfigError {
        ModelConfigError::Setting {
            path: self.path.to_owned(),
            key: key.to_owned(),
            got: self.object.get(key).map_or_else(
                || "absent".to_owned(),
                |value| value.to_string().chars().take(80).collect(),
            ),
            expected,
        }
    }

    fn only(&self, key: &str, allowed: &[Value], required: bool) -> Result<(), ModelConfigError> {
        match self.object.get(key) {
            None if !required => Ok(()),
            Some(value) if allowed.contains(value) => Ok(()),
            _ => Err(self.refuse(
                key,
                match key {
                    "model_type" => "\"llama\", the one supported architecture",
                    "hidden_act" => "\"silu\", the one supported activation",
                    "quantization_config" => "none: quantized checkpoints are not supported",
                    _ => "false: biases are not supported",
                },
            )),
        }
    }

    fn nested(&self, key: &str, inner: &str) -> Option<&Value> {
        self.object.get(key)?.get(inner)
    }

    fn rope_kind(&self, key: &str) -> Result<(), ModelConfigError> {
        let expected = "absent, null or of type \"default\": scaled RoPE is not supported";
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(map)) => {
                let kind = map.get("rope_type").or_else(|| map.get("type"));
                match kind {
                    Some(kind) if kind == "default" => Ok(()),
                    None if map.keys().all(|key| key == "rope_theta") => Ok(()),
                    _ => Err(self.refuse(key, expected)),
                }
            }
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    fn size(&self, key: &str) -> Result<usize, ModelConfigError> {
        self.object
            .get(key)
            .and_then(Value::as_u64)
            // Far above any model, far below what could overflow a product of two.
            .filter(|&size| (1..=1 << 24).contains(&size))
            .map(|size| size as usize)
            .ok_or_else(|| self.refuse(key, "a whole number from 1 to 16777216"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, ModelConfigError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.size(key),
        }
    }

    fn as_number(&self, key: &str, value: &Value) -> Result<f64, ModelConfigError> {
        value
            .as_f64()
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| self.refuse(key, "a number above 0"))
    }

    fn token(&self, key: &str) -> Option<u32> {
        let value = self.object.get(key)?;
        let value = value
            .as_array()
            .and_then(|ids| ids.first())
            .unwrap_or(value);
        value.as_u64().and_then(|id| u32::try_from(id).ok())
    }
}

/// A configuration that is not a Llama's, or not one we run.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// Not JSON.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A setting that is missing, wrong or not supported.
    #[error("{}: '{key}' is {got}: expected {expected}", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// Its value, cut at 80 characters.
        got: String,
        /// What would do.
        expected: &'static str,
    },
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny() -> LlamaConfig {
        LlamaConfig {
            architecture: Architecture::Llama,
            vocab_size: 40,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 6,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 500_000.0,
            rope_scaling: None,
            sliding_window: None,
            qkv_bias: false,
            tie_word_embeddings: true,
            bos_token_id: Some(0),
            eos_token_id: Some(1),
        }
    }

    fn load_with(key: &str, value: Value) -> Result<LlamaConfig, ModelConfigError> {
        let mut object: Map<String, Value> =
            serde_json::from_str(&tiny().to_json("bfloat16")).unwrap();
        object.insert(key.to_owned(), value);
        let dir = tempfile::tempdir().unwrap();
        let text = serde_json::to_string(&object).unwrap();
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        LlamaConfig::load(dir.path())
    }

    #[test]
    fn round_trips() {
        assert_eq!(load_with("use_cache", json!(true)).unwrap(), tiny());
    }

    #[test]
    fn reads_the_nested_rope_base() {
        let nested = json!({"rope_theta": 5.0, "rope_type": "default"});
        assert_eq!(
            load_with("rope_parameters", nested).unwrap().rope_theta,
            5.0
        );
    }

    #[test]
    fn refuses_by_name_what_is_not_supported() {
        let bad = [
            ("model_type", json!("mistral")),
            ("hidden_act", json!("gelu")),
            ("attention_bias", json!(true)),
            ("mlp_bias", json!(true)),
            ("quantization_config", json!({"bits": 4})),
            (
                "rope_scaling",
                json!({"rope_type": "llama3", "factor": 8.0}),
            ),
            ("rope_scaling", json!({"type": "linear", "factor": 8.0})),
            ("rope_parameters", json!({"rope_type": "yarn"})),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(5)),
            ("hidden_size", json!(0)),
            ("hidden_size", json!("16")),
            ("vocab_size", json!(1_u64 << 40)),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!("big")),
        ];
        for (key, value) in bad {
            let error = load_with(key, value.clone()).unwrap_err().to_string();
            assert!(error.contains(key), "{key} {value}: {error}");
        }
    }
}
