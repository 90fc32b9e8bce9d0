//! `config.json` taken apart as Transformers does: its names, old ones included, and its
//! defaults. What the forward pass does not compute is refused by name.

mod architecture;
mod fields;
mod gemma3;
mod rope;

use std::path::Path;

use serde_json::{Map, Value};

use super::{Architecture, LlamaConfig, ModelConfigError};
use architecture::{Defaults, architecture, qkv_bias, variation};
use fields::{BLOCKS, Fields, HEADS, TOKENS, WIDTH};

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
    if architecture != Architecture::Gemma3 {
        top.absent_or("hidden_act", &["silu", "swish"], "\"silu\"")?;
    }
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

    let defaults = Defaults::of(architecture);
    let heads = top.size("num_attention_heads", HEADS)?;
    let hidden_size = top.size("hidden_size", WIDTH)?;
    let num_hidden_layers = top.size("num_hidden_layers", BLOCKS)?;
    let max_position_embeddings = top
        .optional_size("max_position_embeddings", TOKENS)?
        .unwrap_or(defaults.positions);
    let (rope_theta, rope_scaling) = match architecture {
        Architecture::Gemma3 => gemma3::full_rope(&top, max_position_embeddings)?,
        _ => rope::rope(&top, max_position_embeddings, defaults.theta)?,
    };
    let (sliding_window, variation) = variation(
        &top,
        architecture,
        (num_hidden_layers, hidden_size),
        max_position_embeddings,
    )?;
    let config = LlamaConfig {
        architecture,
        vocab_size: match (top.get("vocab_size"), defaults.vocabulary) {
            (None, Some(default)) => default,
            _ => top.size("vocab_size", TOKENS)?,
        },
        hidden_size,
        intermediate_size: top.size("intermediate_size", WIDTH)?,
        num_hidden_layers,
        num_attention_heads: heads,
        num_key_value_heads: key_value_heads(&top, &defaults, heads)?,
        head_dim: head_dim(&top, architecture, hidden_size, heads)?,
        max_position_embeddings,
        rms_norm_eps: top.optional_number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        sliding_window,
        qkv_bias: qkv_bias(&top, architecture)?,
        variation,
        tie_word_embeddings: match top.get("tie_word_embeddings") {
            None => defaults.tied,
            Some(_) => top.flag("tie_word_embeddings")?,
        },
        bos_token_id: top.token("bos_token_id", defaults.tokens[0]),
        eos_token_id: top.token("eos_token_id", defaults.tokens[1]),
    };
    if heads % config.num_key_value_heads != 0 {
        return Err(top.refuse("num_key_value_heads", "a divisor of num_attention_heads"));
    }
    Ok(config)
}

/// Where the key is absent each architecture has a default of its own; null stands for the
/// number of query heads.
fn key_value_heads(
    top: &Fields<'_>,
    defaults: &Defaults,
    heads: usize,
) -> Result<usize, ModelConfigError> {
    match top.object.get("num_key_value_heads") {
        Some(Value::Null) => Ok(heads),
        None => Ok(defaults.key_value_heads.unwrap_or(heads)),
        Some(_) => top.size("num_key_value_heads", HEADS),
    }
}

fn head_dim(
    top: &Fields<'_>,
    architecture: Architecture,
    hidden_size: usize,
    heads: usize,
) -> Result<usize, ModelConfigError> {
    let stated = top.optional_size("head_dim", HEADS)?;
    let stated = stated.or(Defaults::of(architecture).head_dim);
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
