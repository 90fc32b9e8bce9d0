//! `config.json` taken apart as Transformers does: its names, old ones included, and its
//! defaults. What the forward pass does not compute is refused by name.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Architecture, Llama3Scaling, LlamaConfig, ModelConfigError};

/// A range of whole numbers from 1. Far above any model, and so low that neither the list
/// of a model's tensors nor a product of two sizes gets out of hand.
#[derive(Clone, Copy)]
struct Limit {
    most: u64,
    text: &'static str,
}

const BLOCKS: Limit = Limit {
    most: 1 << 12,
    text: "a whole number from 1 to 4096",
};
const HEADS: Limit = Limit {
    most: 1 << 14,
    text: "a whole number from 1 to 16384",
};
const WIDTH: Limit = Limit {
    most: 1 << 20,
    text: "a whole number from 1 to 1048576",
};
const TOKENS: Limit = Limit {
    most: 1 << 24,
    text: "a whole number from 1 to 16777216",
};

/// Reads the object that stands in the file `path`.
pub(super) fn config(
    path: &Path,
    object: &Map<String, Value>,
) -> Result<LlamaConfig, ModelConfigError> {
    let top = Fields {
        path,
        within: None,
        object,
    };
    let architecture = architecture(&top)?;
    top.absent_or("hidden_act", &["silu", "swish"], "\"silu\"")?;
    top.off(
        "mlp_bias",
        "false: a bias in the feed-forward part is not supported",
    )?;
    top.off(
        "use_mrope",
        "false: positions of several axes are not supported",
    )?;
    top.none(
        "quantization_config",
        "none: fetch the checkpoint in bf16, f16 or f32; it can be quantized when it is loaded",
    )?;
    top.whole_head()?;

    let heads = top.size("num_attention_heads", HEADS)?;
    let hidden_size = top.size("hidden_size", WIDTH)?;
    let num_hidden_layers = top.size("num_hidden_layers", BLOCKS)?;
    let max_position_embeddings = top
        .optional_size("max_position_embeddings", TOKENS)?
        .unwrap_or(default_positions(architecture));
    let (rope_theta, rope_scaling) = rope(&top, max_position_embeddings)?;
    let config = LlamaConfig {
        architecture,
        vocab_size: top.size("vocab_size", TOKENS)?,
        hidden_size,
        intermediate_size: top.size("intermediate_size", WIDTH)?,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads(&top, architecture, heads)?,
        head_dim: head_dim(&top, architecture, hidden_size, heads)?,
        max_position_embeddings,
        rms_norm_eps: top.optional_number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        sliding_window: window(
            &top,
            architecture,
            num_hidden_layers,
            max_position_embeddings,
        )?,
        qkv_bias: qkv_bias(&top, architecture)?,
        tie_word_embeddings: top.flag("tie_word_embeddings")?,
        bos_token_id: top.token("bos_token_id", default_token(architecture, 1)),
        eos_token_id: top.token("eos_token_id", default_token(architecture, 2)),
    };
    if heads % config.num_key_value_heads != 0 {
        return Err(top.refuse("num_key_value_heads", "a divisor of num_attention_heads"));
    }
    Ok(config)
}

fn architecture(top: &Fields<'_>) -> Result<Architecture, ModelConfigError> {
    let found = top.get("model_type").and_then(Value::as_str);
    Architecture::ALL
        .into_iter()
        .find(|architecture| found == Some(architecture.model_type()))
        .ok_or_else(|| {
            top.refuse(
                "model_type",
                "\"llama\", \"mistral\" or \"qwen2\", the supported architectures",
            )
        })
}

fn default_positions(architecture: Architecture) -> usize {
    match architecture {
        Architecture::Llama => 2048,
        Architecture::Mistral => 4096 * 32,
        Architecture::Qwen2 => 32_768,
    }
}

fn default_token(architecture: Architecture, id: u32) -> Option<u32> {
    (architecture != Architecture::Qwen2).then_some(id)
}

/// Where the key is absent each architecture has a default of its own; null stands for the
/// number of query heads.
fn key_value_heads(
    top: &Fields<'_>,
    architecture: Architecture,
    heads: usize,
) -> Result<usize, ModelConfigError> {
    Ok(
        match (top.object.get("num_key_value_heads"), architecture) {
            (Some(Value::Null), _) | (None, Architecture::Llama) => heads,
            (None, Architecture::Mistral) => 8,
            (None, Architecture::Qwen2) => 32,
            (Some(_), _) => top.size("num_key_value_heads", HEADS)?,
        },
    )
}

fn head_dim(
    top: &Fields<'_>,
    architecture: Architecture,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ModelConfigError> {
    let stated = top.optional_size("head_dim", HEADS)?;
    // Transformers takes no Llama whose heads do not divide its width, stated or not.
    if (stated.is_none() || architecture == Architecture::Llama)
        && !hidden_size.is_multiple_of(heads)
    {
        return Err(top.refuse("num_attention_heads", "a divisor of hidden_size"));
    }
    let dim = stated.unwrap_or(hidden_size / heads);
    if !dim.is_multiple_of(2) {
        return Err(top.refuse(
            "head_dim",
            "an even number (hidden_size / num_attention_heads where absent)",
        ));
    }
    Ok(dim)
}

/// The base of the rotary frequencies, and their scaling. `rope_scaling` beside `rope_theta`
/// is what Transformers 4 writes, `rope_parameters` with the base inside what 5 writes; the
/// former wins where both stand.
fn rope(
    top: &Fields<'_>,
    positions: usize,
) -> Result<(f64, Option<Llama3Scaling>), ModelConfigError> {
    let theta = top.optional_number("rope_theta")?.unwrap_or(10_000.0);
    let Some(rope) = top
        .rope_object("rope_scaling")?
        .or(top.rope_object("rope_parameters")?)
    else {
        return Ok((theta, None));
    };
    rope.whole_head()?;
    let theta = rope.optional_number("rope_theta")?.unwrap_or(theta);
    let kind_key = if rope.get("rope_type").is_some() {
        "rope_type"
    } else {
        "type"
    };
    let kind = rope.get(kind_key).map_or(Some("default"), Value::as_str);
    let scaled = [
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ];
    let common = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
    let llama3 = kind == Some("llama3");
    for key in rope.object.keys().map(String::as_str) {
        let known = common.contains(&key) || llama3 && scaled.contains(&key);
        if !known && kind.is_some_and(|kind| ["default", "llama3"].contains(&kind)) {
            rope.none(
                key,
                "none: this kind of RoPE has no such setting (kinds that are supported: \
                 \"default\", \"llama3\")",
            )?;
        }
    }
    match kind {
        Some("default") => Ok((theta, None)),
        Some("llama3") => {
            // A file that states it at the top means that.
            let original = match top.optional_size("original_max_position_embeddings", TOKENS)? {
                Some(original) => Some(original),
                None => rope.optional_size("original_max_position_embeddings", TOKENS)?,
            };
            let scaling = Llama3Scaling {
                factor: rope.number("factor")?,
                low_freq_factor: rope.number("low_freq_factor")?,
                high_freq_factor: rope.number("high_freq_factor")?,
                original_max_position_embeddings: original.unwrap_or(positions),
            };
            if scaling.high_freq_factor <= scaling.low_freq_factor {
                return Err(rope.refuse("high_freq_factor", "a number above low_freq_factor"));
            }
            Ok((theta, Some(scaling)))
        }
        _ => Err(rope.refuse(
            kind_key,
            "\"default\" or \"llama3\", the supported kinds of RoPE",
        )),
    }
}

/// The one window of all blocks. Qwen2 can have a window in its later blocks only.
fn window(
    top: &Fields<'_>,
    architecture: Architecture,
    blocks: usize,
    positions: usize,
) -> Result<Option<usize>, ModelConfigError> {
    let stated = match top.object.get("sliding_window") {
        None => Some(4096),
        Some(_) => top.optional_size("sliding_window", TOKENS)?,
    };
    match architecture {
        // Llama has no window, whatever the file says.
        Architecture::Llama => Ok(None),
        Architecture::Mistral => Ok(stated),
        Architecture::Qwen2 => {
            let used = top.flag("use_sliding_window")?;
            let Some(window) = stated.filter(|_| used) else {
                return Ok(None);
            };
            let (key, windowed) = windowed_blocks(top, blocks)?;
            if windowed == blocks {
                Ok(Some(window))
            } else if windowed == 0 || window >= positions {
                Ok(None)
            } else {
                Err(top.refuse(
                    key,
                    "a sliding window in all blocks or in none (max_window_layers 0, or \
                     num_hidden_layers): one in some blocks is not supported",
                ))
            }
        }
    }
}

/// How many blocks have the window, and the setting that says so.
fn windowed_blocks(
    top: &Fields<'_>,
    blocks: usize,
) -> Result<(&'static str, usize), ModelConfigError> {
    if let Some(value) = top.get("layer_types") {
        let kinds: Option<Vec<_>> = value
            .as_array()
            .filter(|kinds| kinds.len() == blocks)
            .and_then(|kinds| kinds.iter().map(Value::as_str).collect());
        let known = ["full_attention", "sliding_attention"];
        return match kinds {
            Some(kinds) if kinds.iter().all(|kind| known.contains(kind)) => {
                let windowed = kinds.iter().filter(|&&kind| kind == known[1]).count();
                Ok(("layer_types", windowed))
            }
            _ => Err(top.refuse(
                "layer_types",
                "\"full_attention\" or \"sliding_attention\" for each block",
            )),
        };
    }
    let full = match top.get("max_window_layers") {
        None => 28,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| top.refuse("max_window_layers", "a whole number"))?,
    };
    let full = usize::try_from(full).unwrap_or(usize::MAX);
    Ok(("max_window_layers", blocks.saturating_sub(full)))
}

/// Qwen2 always has them. Of Llama's `attention_bias` we take those of q k v: that the one of
/// o is zero is seen when the weights are read.
fn qkv_bias(top: &Fields<'_>, architecture: Architecture) -> Result<bool, ModelConfigError> {
    match architecture {
        Architecture::Llama => top.flag("attention_bias"),
        Architecture::Mistral => {
            top.off("attention_bias", "false: Mistral has no biases")?;
            Ok(false)
        }
        Architecture::Qwen2 => Ok(true),
    }
}

/// A JSON object with the file and the setting that it stands in, for errors.
struct Fields<'a> {
    path: &'a Path,
    within: Option<&'static str>,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    fn refuse(&self, key: &str, expected: &'static str) -> ModelConfigError {
        ModelConfigError::Setting {
            path: self.path.to_owned(),
            key: match self.within {
                Some(within) => format!("{within}.{}", short(key)),
                None => short(key),
            },
            got: self
                .object
                .get(key)
                .map_or_else(|| "absent".to_owned(), |value| short(&value.to_string())),
            expected,
        }
    }

    /// The value, where there is one other than null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn none(&self, key: &str, expected: &'static str) -> Result<(), ModelConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    fn absent_or(
        &self,
        key: &str,
        allowed: &[&str],
        expected: &'static str,
    ) -> Result<(), ModelConfigError> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if value.as_str().is_some_and(|text| allowed.contains(&text)) => Ok(()),
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    fn off(&self, key: &str, expected: &'static str) -> Result<(), ModelConfigError> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(_) => Err(self.refuse(key, expected)),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, ModelConfigError> {
        match self.get(key) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.refuse(key, "true or false")),
        }
    }

    fn size(&self, key: &str, limit: Limit) -> Result<usize, ModelConfigError> {
        self.object
            .get(key)
            .and_then(Value::as_u64)
            .filter(|size| (1..=limit.most).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.refuse(key, limit.text))
    }

    fn optional_size(&self, key: &str, limit: Limit) -> Result<Option<usize>, ModelConfigError> {
        self.get(key).map(|_| self.size(key, limit)).transpose()
    }

    fn number(&self, key: &str) -> Result<f64, ModelConfigError> {
        self.object
            .get(key)
            .and_then(Value::as_f64)
            // Transformers computes with them in f32.
            .filter(|&number| number > 0.0 && number < f64::from(f32::MAX))
            .ok_or_else(|| self.refuse(key, "a number above 0"))
    }

    fn optional_number(&self, key: &str) -> Result<Option<f64>, ModelConfigError> {
        self.get(key).map(|_| self.number(key)).transpose()
    }

    fn whole_head(&self) -> Result<(), ModelConfigError> {
        match self.optional_number("partial_rotary_factor")? {
            None => Ok(()),
            Some(1.0) => Ok(()),
            Some(_) => Err(self.refuse("partial_rotary_factor", "1: all of a head is rotated")),
        }
    }

    /// The object at `key`; an empty one says nothing.
    fn rope_object(&self, key: &'static str) -> Result<Option<Fields<'a>>, ModelConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok((!object.is_empty()).then_some(Fields {
                path: self.path,
                within: Some(key),
                object,
            })),
            Some(_) => Err(self.refuse(key, "null or an object with a rope_type")),
        }
    }

    /// The token's id, or the first of several.
    fn token(&self, key: &str, default: Option<u32>) -> Option<u32> {
        let Some(value) = self.object.get(key) else {
            return default;
        };
        let value = value
            .as_array()
            .and_then(|ids| ids.first())
            .unwrap_or(value);
        value.as_u64().and_then(|id| u32::try_from(id).ok())
    }
}

/// Cut at 80 characters.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
