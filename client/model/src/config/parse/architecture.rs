//! What `config.json` means in each architecture: what stands for absent settings, and what its
//! blocks compute otherwise than Llama's. What the forward pass does not compute is refused by
//! name.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Architecture, ModelConfigError, Multipliers, Variation};
use super::fields::{Fields, TOKENS};
use super::gemma3;

/// What Transformers takes where a setting is absent.
pub(super) struct Defaults {
    pub(super) positions: usize,
    pub(super) theta: f64,
    /// Tokens in the vocabulary; to be stated where `None`.
    pub(super) vocabulary: Option<usize>,
    /// As many as query heads where `None`.
    pub(super) key_value_heads: Option<usize>,
    /// The width divided by the query heads where `None`.
    pub(super) head_dim: Option<usize>,
    pub(super) window: Option<usize>,
    pub(super) tied: bool,
    /// The tokens that begin and end a sequence.
    pub(super) tokens: [Option<u32>; 2],
}

impl Defaults {
    const LLAMA: Self = Self {
        positions: 2048,
        theta: 10_000.0,
        vocabulary: None,
        key_value_heads: None,
        head_dim: None,
        window: None,
        tied: false,
        tokens: [Some(1), Some(2)],
    };

    pub(super) const GEMMA3: Self = Self {
        positions: 131_072,
        theta: 1_000_000.0,
        vocabulary: Some(262_208),
        key_value_heads: Some(4),
        head_dim: Some(256),
        window: Some(4096),
        tied: true,
        tokens: [Some(2), Some(1)],
    };

    pub(super) fn of(architecture: Architecture) -> Self {
        let llama = Self::LLAMA;
        match architecture {
            Architecture::Llama | Architecture::Granite => llama,
            Architecture::Mistral => Self {
                positions: 4096 * 32,
                key_value_heads: Some(8),
                window: Some(4096),
                ..llama
            },
            Architecture::Qwen2 => Self {
                positions: 32_768,
                key_value_heads: Some(32),
                window: Some(4096),
                tokens: [None; 2],
                ..llama
            },
            Architecture::Qwen3 => Self {
                head_dim: Some(128),
                ..Self::of(Architecture::Qwen2)
            },
            Architecture::SmolLm3 => Self {
                positions: 32_768,
                theta: 2_000_000.0,
                key_value_heads: Some(4),
                tied: true,
                tokens: [Some(128_000), Some(128_001)],
                ..llama
            },
            Architecture::Gemma3 => Self::GEMMA3,
        }
    }
}

/// The architecture that a file states.
pub(super) fn architecture(top: &Fields<'_>) -> Result<Architecture, ModelConfigError> {
    let key = "model_type";
    let found = top.get(key).and_then(Value::as_str);
    let supported = Architecture::ALL
        .into_iter()
        .find(|architecture| found == Some(architecture.model_type()));
    if let Some(architecture) = supported {
        return Ok(architecture);
    }
    let experts = ["num_local_experts", "num_experts", "n_routed_experts"];
    let mixture = found.is_some_and(|kind| MIXTURES.contains(&kind) || kind.ends_with("_moe"))
        || experts.iter().any(|key| top.get(key).is_some());
    Err(top.refuse(
        key,
        match found {
            _ if mixture => {
                "a dense model (\"llama\", \"mistral\", \"qwen2\", \"qwen3\", \"smollm3\", \
                 \"granite\" or \"gemma3_text\"): this one is a mixture of experts, which is not \
                 supported"
            }
            Some("gemma3") => {
                "\"gemma3_text\": this checkpoint takes images too, which is not supported; use a \
                 Gemma 3 for text alone, such as google/gemma-3-1b-it"
            }
            Some("phi3") => {
                "an architecture with a projection each for q, k, v, gate and up: this one fuses \
                 them, so that an adapter of them would not be one that PEFT loads into the model"
            }
            _ => {
                "\"llama\", \"mistral\", \"qwen2\", \"qwen3\", \"smollm3\", \"granite\" or \
                 \"gemma3_text\", the supported architectures"
            }
        },
    ))
}

/// Mixtures of experts whose names do not say so.
const MIXTURES: [&str; 5] = ["llama4", "llama4_text", "mixtral", "granitemoe", "gpt_oss"];

/// Qwen2 always has them. Of Llama's `attention_bias` we take those of q k v: that the one of
/// o is zero is seen when the weights are read.
pub(super) fn qkv_bias(
    top: &Fields<'_>,
    architecture: Architecture,
) -> Result<bool, ModelConfigError> {
    match architecture {
        Architecture::Llama => top.flag("attention_bias"),
        Architecture::Qwen2 => Ok(true),
        Architecture::Mistral => {
            top.off("attention_bias", "false: Mistral has no biases")?;
            Ok(false)
        }
        Architecture::Qwen3
        | Architecture::SmolLm3
        | Architecture::Granite
        | Architecture::Gemma3 => {
            top.off(
                "attention_bias",
                "false: biases on the attention of this architecture are not supported",
            )?;
            Ok(false)
        }
    }
}

/// What the blocks compute otherwise than Llama's, and the sliding window.
pub(super) fn variation(
    top: &Fields<'_>,
    architecture: Architecture,
    (blocks, hidden_size): (usize, usize),
    positions: usize,
) -> Result<(Option<usize>, Variation), ModelConfigError> {
    let mut variation = Variation::default();
    let stated = match top.object.get("sliding_window") {
        None => Defaults::of(architecture).window,
        Some(_) => top.optional_size("sliding_window", TOKENS)?,
    };
    let window = match architecture {
        Architecture::Gemma3 => return gemma3::variation(top, blocks, hidden_size),
        // Neither has a window, whatever the file says.
        Architecture::Llama => None,
        Architecture::Granite => {
            variation.multipliers = granite(top)?;
            None
        }
        Architecture::Mistral => stated,
        Architecture::Qwen2 | Architecture::Qwen3 => {
            variation.qk_norm = architecture == Architecture::Qwen3;
            let unstated = || max_window_layers(top, blocks);
            let (window, full) = window_by_block(top, stated, (blocks, positions), unstated)?;
            variation.unwindowed = full;
            window
        }
        Architecture::SmolLm3 => {
            variation.unrotated = unrotated(top, blocks)?;
            let rotated = |block: &usize| !variation.unrotated.contains(block);
            let unstated = || Ok((0..blocks).filter(rotated).collect());
            let (window, full) = window_by_block(top, stated, (blocks, positions), unstated)?;
            variation.unwindowed = full;
            window
        }
    };
    Ok((window, variation))
}

/// The window of all blocks but some, and those: what `layer_types` lists, or else `unstated`. One
/// that is not used, that no block has, or that no sequence leaves, is none.
fn window_by_block(
    top: &Fields<'_>,
    stated: Option<usize>,
    (blocks, positions): (usize, usize),
    unstated: impl FnOnce() -> Result<BTreeSet<usize>, ModelConfigError>,
) -> Result<(Option<usize>, BTreeSet<usize>), ModelConfigError> {
    let used = top.flag("use_sliding_window")?;
    let Some(window) = stated.filter(|_| used) else {
        return Ok(Default::default());
    };
    let full = match layer_types(top, blocks)? {
        Some(full) => full,
        None => unstated()?,
    };
    if full.len() == blocks || (!full.is_empty() && window >= positions) {
        return Ok(Default::default());
    }
    Ok((Some(window), full))
}

/// The blocks without a window, where `layer_types` lists them.
pub(super) fn layer_types(
    top: &Fields<'_>,
    blocks: usize,
) -> Result<Option<BTreeSet<usize>>, ModelConfigError> {
    let key = "layer_types";
    let Some(value) = top.get(key) else {
        return Ok(None);
    };
    let kinds: Option<Vec<_>> = value
        .as_array()
        .filter(|kinds| kinds.len() == blocks)
        .and_then(|kinds| kinds.iter().map(Value::as_str).collect());
    let known = ["full_attention", "sliding_attention"];
    match kinds {
        Some(kinds) if kinds.iter().all(|kind| known.contains(kind)) => {
            let full = kinds
                .iter()
                .enumerate()
                .filter(|(_, kind)| **kind == known[0]);
            Ok(Some(full.map(|(block, _)| block).collect()))
        }
        _ => Err(top.refuse(
            key,
            "\"full_attention\" or \"sliding_attention\" for each block",
        )),
    }
}

/// Qwen's blocks from this one on have the window.
fn max_window_layers(top: &Fields<'_>, blocks: usize) -> Result<BTreeSet<usize>, ModelConfigError> {
    let full = match top.get("max_window_layers") {
        None => 28,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| top.refuse("max_window_layers", "a whole number"))?,
    };
    Ok((0..blocks.min(usize::try_from(full).unwrap_or(usize::MAX))).collect())
}

/// The blocks that `no_rope_layers` marks with 0, or every so many.
fn unrotated(top: &Fields<'_>, blocks: usize) -> Result<BTreeSet<usize>, ModelConfigError> {
    let key = "no_rope_layers";
    let Some(value) = top.get(key) else {
        let every = top
            .optional_size("no_rope_layer_interval", TOKENS)?
            .unwrap_or(4);
        return Ok((0..blocks)
            .filter(|block| (block + 1).is_multiple_of(every))
            .collect());
    };
    let flags: Option<Vec<u64>> = value
        .as_array()
        .filter(|flags| flags.len() >= blocks)
        .and_then(|flags| flags.iter().map(Value::as_u64).collect());
    match flags {
        Some(flags) if flags.iter().all(|&flag| flag < 2) => {
            Ok((0..blocks).filter(|&block| flags[block] == 0).collect())
        }
        _ => Err(top.refuse(key, "0 or 1 for each block")),
    }
}

fn granite(top: &Fields<'_>) -> Result<Multipliers, ModelConfigError> {
    let factor =
        |key| -> Result<f64, ModelConfigError> { Ok(top.optional_number(key)?.unwrap_or(1.0)) };
    Ok(Multipliers {
        embedding: factor("embedding_multiplier")?,
        attention: Some(factor("attention_multiplier")?),
        residual: factor("residual_multiplier")?,
        logits_scaling: factor("logits_scaling")?,
    })
}
