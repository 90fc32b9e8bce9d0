//! A model's configuration from a GGUF file's metadata and the tensors it has.

use super::super::config::{Architecture, LlamaConfig, Multipliers, RopeScaling, Variation};
use super::container::Container;
use super::error::GgufError;
use super::gemma3;
use super::metadata::{Metadata, Value};
use super::names::{EMBEDDING, OUTPUT};
use super::rope_factors;
use super::rope_scaling;

/// Far above any model, far below what could overflow a product of two.
const MAX_SIZE: i128 = 1 << 24;
const SIZE: &str = "a whole number from 1 to 16777216";

/// Reads the configuration. What the forward pass does not implement is refused by name.
pub(super) fn read(container: &Container) -> Result<LlamaConfig, GgufError> {
    let metadata = container.metadata();
    let (architecture, prefix) = architecture(metadata)?;
    let keys = Keys { metadata, prefix };
    keys.only_plain_blocks()?;

    let heads = keys.size("attention.head_count")?;
    let kv_heads = keys.size_or("attention.head_count_kv", heads)?;
    if heads % kv_heads != 0 {
        return Err(keys.refuse("attention.head_count_kv", "a divisor of the head count"));
    }
    let hidden_size = keys.size("embedding_length")?;
    let head_dim = keys.head_dim(hidden_size, heads)?;
    let rope_theta = keys.positive("rope.freq_base")?.unwrap_or(10_000.0);
    let blocks = keys.size("block_count")?;
    has_blocks(container, blocks)?;
    let sliding_window = sliding_window(&keys, architecture)?;
    let config = LlamaConfig {
        architecture: match (architecture, sliding_window) {
            // Mistral's files call themselves Llama; only a window tells them apart.
            (Architecture::Llama, Some(_)) => Architecture::Mistral,
            _ => architecture,
        },
        vocab_size: keys.vocabulary(container)?,
        hidden_size,
        intermediate_size: keys.size("feed_forward_length")?,
        num_hidden_layers: blocks,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        max_position_embeddings: keys.size("context_length")?,
        rms_norm_eps: keys
            .positive("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| keys.refuse("attention.layer_norm_rms_epsilon", POSITIVE))?,
        rope_theta,
        rope_scaling: scaling(container, &keys, head_dim, rope_theta)?,
        sliding_window,
        qkv_bias: architecture == Architecture::Qwen2,
        variation: variation(
            &keys,
            architecture,
            Sizes {
                blocks,
                hidden_size,
                heads,
                head_dim,
                windowed: sliding_window.is_some(),
            },
        )?,
        tie_word_embeddings: !container.tensors().contains_key(OUTPUT),
        bos_token_id: token(metadata, "tokenizer.ggml.bos_token_id")?,
        eos_token_id: token(metadata, "tokenizer.ggml.eos_token_id")?,
    };
    Ok(config)
}

/// What the metadata says, or what the file's factors come from.
fn scaling(
    container: &Container,
    keys: &Keys<'_>,
    head_dim: usize,
    theta: f64,
) -> Result<Option<RopeScaling>, GgufError> {
    let stated = rope_scaling::read(keys)?;
    let found = rope_factors::scaling(container, head_dim, theta)?;
    if stated.is_some() && found.is_some() {
        let expected = "absent or \"none\" beside 'rope_freqs.weight': two kinds of scaled RoPE";
        return Err(keys.refuse("rope.scaling.type", expected));
    }
    Ok(stated.or(found.map(RopeScaling::Llama3)))
}

const POSITIVE: &str = "a number above 0";

const SUPPORTED: &str = "\"llama\", \"qwen2\", \"qwen3\", \"smollm3\", \"granite\" or \"gemma3\", \
                         the supported architectures";
const DENSE: &str = "a dense model (\"llama\", \"qwen2\", \"qwen3\", \"smollm3\", \"granite\" or \
                     \"gemma3\"): this one is a mixture of experts, which is not supported";
const FUSED: &str = "an architecture with a projection each for q, k, v, gate and up: this one \
                     fuses them, so that an adapter of them would not be one that PEFT loads into \
                     the model";

fn architecture(metadata: &Metadata) -> Result<(Architecture, &'static str), GgufError> {
    let key = "general.architecture";
    match metadata.required(key, SUPPORTED, Value::as_text)? {
        "llama" => Ok((Architecture::Llama, "llama")),
        "qwen2" => Ok((Architecture::Qwen2, "qwen2")),
        "qwen3" => Ok((Architecture::Qwen3, "qwen3")),
        "smollm3" => Ok((Architecture::SmolLm3, "smollm3")),
        "granite" => Ok((Architecture::Granite, "granite")),
        "gemma3" => Ok((Architecture::Gemma3, "gemma3")),
        "phi3" => Err(metadata.refuse(key, FUSED)),
        "llama4" | "gpt-oss" => Err(metadata.refuse(key, DENSE)),
        mixture if mixture.ends_with("moe") => Err(metadata.refuse(key, DENSE)),
        _ => Err(metadata.refuse(key, SUPPORTED)),
    }
}

/// One window for all blocks, or for those that an architecture says. Which blocks have it a file
/// of other newer architectures does not tell.
fn sliding_window(keys: &Keys<'_>, architecture: Architecture) -> Result<Option<usize>, GgufError> {
    let window = keys.optional_size("attention.sliding_window")?;
    let mixed = matches!(
        architecture,
        Architecture::Qwen3 | Architecture::SmolLm3 | Architecture::Granite
    );
    if mixed && window.is_some() {
        let expected = "absent: a window is not supported in a GGUF file of this architecture";
        return Err(keys.refuse("attention.sliding_window", expected));
    }
    Ok(window)
}

/// What the blocks compute otherwise than Llama's.
fn variation(
    keys: &Keys<'_>,
    architecture: Architecture,
    sizes: Sizes,
) -> Result<Variation, GgufError> {
    let factor = |name| -> Result<f64, GgufError> { Ok(keys.positive(name)?.unwrap_or(1.0)) };
    Ok(match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 => Variation::default(),
        Architecture::Qwen3 => Variation {
            qk_norm: true,
            ..Variation::default()
        },
        // No metadata tells: llama.cpp rotates all blocks but every fourth.
        Architecture::SmolLm3 => Variation {
            unrotated: (0..sizes.blocks).filter(|block| block % 4 == 3).collect(),
            ..Variation::default()
        },
        Architecture::Granite => Variation {
            multipliers: Multipliers {
                embedding: factor("embedding_scale")?,
                attention: keys.positive("attention.scale")?,
                residual: factor("residual_scale")?,
                logits_scaling: factor("logit_scale")?,
            },
            ..Variation::default()
        },
        Architecture::Gemma3 => gemma3::variation(keys, sizes)?,
    })
}

/// What the variation of blocks depends on.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) blocks: usize,
    pub(super) hidden_size: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// Whether the file states a window.
    pub(super) windowed: bool,
}

/// Refuses more blocks than the file has tensors of, before a list of them is made.
fn has_blocks(container: &Container, blocks: usize) -> Result<(), GgufError> {
    let missing = (0..blocks)
        .map(|layer| format!("blk.{layer}.attn_norm.weight"))
        .find(|name| !container.tensors().contains_key(name));
    match missing {
        None => Ok(()),
        Some(name) => Err(GgufError::Missing {
            path: container.path().to_owned(),
            name,
        }),
    }
}

/// The token id that metadata holds under `key`; `None` where the key is absent.
///
/// # Errors
/// A value that is not a token id.
pub fn token(metadata: &Metadata, key: &str) -> Result<Option<u32>, GgufError> {
    metadata.optional(key, "a token's number", |value| {
        value.as_integer().and_then(|id| u32::try_from(id).ok())
    })
}

/// Metadata under the architecture's name.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    prefix: &'static str,
}

impl Keys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    pub(super) fn refuse(&self, name: &str, expected: &'static str) -> GgufError {
        self.metadata.refuse(&self.key(name), expected)
    }

    pub(super) fn optional_size(&self, name: &str) -> Result<Option<usize>, GgufError> {
        self.metadata.optional(&self.key(name), SIZE, |value| {
            value
                .as_integer()
                .filter(|size| (1..=MAX_SIZE).contains(size))
                .map(|size| size as usize)
        })
    }

    pub(super) fn size(&self, name: &str) -> Result<usize, GgufError> {
        self.optional_size(name)?
            .ok_or_else(|| self.refuse(name, SIZE))
    }

    pub(super) fn size_or(&self, name: &str, default: usize) -> Result<usize, GgufError> {
        Ok(self.optional_size(name)?.unwrap_or(default))
    }

    pub(super) fn positive(&self, name: &str) -> Result<Option<f64>, GgufError> {
        self.metadata.optional(&self.key(name), POSITIVE, |value| {
            value
                .as_float()
                .filter(|number| number.is_finite() && *number > 0.0)
        })
    }

    /// All features of a head are rotated, and values are as wide as keys.
    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize, GgufError> {
        let rotated = self.optional_size("rope.dimension_count")?;
        let head_dim = match self.optional_size("attention.key_length")? {
            Some(length) => length,
            None => rotated.unwrap_or(hidden_size / heads),
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(self.refuse("attention.key_length", "an even number above 0"));
        }
        if rotated.is_some_and(|rotated| rotated != head_dim) {
            let expected = "the width of a head: a rotation of part of it is not supported";
            return Err(self.refuse("rope.dimension_count", expected));
        }
        if self.size_or("attention.value_length", head_dim)? != head_dim {
            return Err(self.refuse("attention.value_length", "the key length"));
        }
        Ok(head_dim)
    }

    /// As stated, or as many as the embedding has.
    fn vocabulary(&self, container: &Container) -> Result<usize, GgufError> {
        if let Some(size) = self.optional_size("vocab_size")? {
            return Ok(size);
        }
        let embedding = container
            .tensors()
            .get(EMBEDDING)
            .ok_or_else(|| GgufError::Missing {
                path: container.path().to_owned(),
                name: EMBEDDING.to_owned(),
            })?;
        Some(embedding.shape[0])
            .filter(|size| *size as i128 <= MAX_SIZE)
            .ok_or_else(|| self.refuse("vocab_size", SIZE))
    }

    fn only_plain_blocks(&self) -> Result<(), GgufError> {
        let none = "absent or 0: mixtures of experts are not supported";
        let experts = self.key("expert_count");
        self.metadata.optional(&experts, none, |value| {
            value.as_integer().filter(|&experts| experts == 0)
        })?;
        Ok(())
    }
}
