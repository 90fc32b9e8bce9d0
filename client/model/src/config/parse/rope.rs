//! The base of the rotary frequencies, and their scaling.

use serde_json::Value;

use super::super::ModelConfigError;
use super::super::rope::{Llama3Scaling, RopeScaling, YarnScaling};
use super::fields::{Fields, TOKENS};

const KINDS: &str =
    "\"default\", \"linear\", \"dynamic\", \"yarn\" or \"llama3\", the supported kinds of RoPE";

/// What every kind may state.
const COMMON: [&str; 4] = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];

/// The settings of a kind beside the common ones; `None` for a kind that is not supported.
fn settings(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "default" => &[],
        "linear" => &["factor"],
        "dynamic" => &["factor", ORIGINAL],
        "yarn" => &[
            "factor",
            ORIGINAL,
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ],
        "llama3" => &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL],
        _ => return None,
    })
}

const ORIGINAL: &str = "original_max_position_embeddings";

/// Both, where the model has so many positions and takes `theta` where no base is stated.
/// `rope_scaling` beside `rope_theta` is what Transformers 4 writes, `rope_parameters` with the
/// base inside what 5 writes; the former wins where both stand.
pub(super) fn rope(
    top: &Fields<'_>,
    positions: usize,
    theta: f64,
) -> Result<(f64, Option<RopeScaling>), ModelConfigError> {
    let theta = top.optional_number("rope_theta")?.unwrap_or(theta);
    let Some(rope) = top
        .rope_object("rope_scaling")?
        .or(top.rope_object("rope_parameters")?)
    else {
        return Ok((theta, None));
    };
    stated(top, &rope, positions, theta)
}

/// What the object `rope` states, with `theta` where it states no base.
pub(super) fn stated(
    top: &Fields<'_>,
    rope: &Fields<'_>,
    positions: usize,
    theta: f64,
) -> Result<(f64, Option<RopeScaling>), ModelConfigError> {
    rope.whole_head()?;
    let theta = rope.optional_number("rope_theta")?.unwrap_or(theta);
    let kind_key = if rope.get("rope_type").is_some() {
        "rope_type"
    } else {
        "type"
    };
    let kind = rope.get(kind_key).map_or(Some("default"), Value::as_str);
    let Some((kind, known)) = kind.and_then(|kind| Some((kind, settings(kind)?))) else {
        return Err(rope.refuse(kind_key, KINDS));
    };
    for key in rope.object.keys().map(String::as_str) {
        if !COMMON.contains(&key) && !known.contains(&key) {
            rope.none(
                key,
                "none: this kind of RoPE has no such setting (kinds that are supported: \
                 \"default\", \"linear\", \"dynamic\", \"yarn\", \"llama3\")",
            )?;
        }
    }
    let scaling = match kind {
        "linear" => RopeScaling::Linear {
            factor: rope.number("factor")?,
        },
        "dynamic" => dynamic(rope, positions)?,
        "yarn" => RopeScaling::Yarn(yarn(top, rope, positions, theta)?),
        "llama3" => RopeScaling::Llama3(llama3(top, rope, positions)?),
        _ => return Ok((theta, None)),
    };
    Ok((theta, Some(scaling)))
}

/// The positions of the first training. A file that states them at the top means that.
fn original(
    top: &Fields<'_>,
    rope: &Fields<'_>,
    positions: usize,
) -> Result<usize, ModelConfigError> {
    let stated = match top.optional_size(ORIGINAL, TOKENS)? {
        Some(original) => Some(original),
        None => rope.optional_size(ORIGINAL, TOKENS)?,
    };
    Ok(stated.unwrap_or(positions))
}

/// Transformers stretches for sequences beyond `max_position_embeddings`, whatever the original
/// positions are: a file that states others expects what it would not get.
fn dynamic(rope: &Fields<'_>, positions: usize) -> Result<RopeScaling, ModelConfigError> {
    if rope
        .optional_size(ORIGINAL, TOKENS)?
        .is_some_and(|original| original != positions)
    {
        return Err(rope.refuse(
            ORIGINAL,
            "none, or max_position_embeddings: dynamic scaling that begins earlier is not \
             supported",
        ));
    }
    Ok(RopeScaling::Dynamic {
        factor: rope.number("factor")?,
    })
}

fn yarn(
    top: &Fields<'_>,
    rope: &Fields<'_>,
    positions: usize,
    theta: f64,
) -> Result<YarnScaling, ModelConfigError> {
    let original = original(top, rope, positions)?;
    let factor = match rope.object.get("factor") {
        Some(Value::Null) => positions as f64 / original as f64,
        _ => rope.number("factor")?,
    };
    let mscale = |of: f64| match factor > 1.0 {
        true => 0.1 * of * factor.ln() + 1.0,
        false => 1.0,
    };
    let scales = (
        rope.optional_number("mscale")?,
        rope.optional_number("mscale_all_dim")?,
    );
    let attention_factor = match (rope.optional_number("attention_factor")?, scales) {
        (Some(stated), _) => stated,
        (None, (Some(some), Some(all))) => mscale(some) / mscale(all),
        (None, _) => mscale(1.0),
    };
    let beta_fast = rope.optional_number("beta_fast")?.unwrap_or(32.0);
    let beta_slow = rope.optional_number("beta_slow")?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        return Err(rope.refuse("beta_fast", "a number that is not below beta_slow"));
    }
    if theta <= 1.0 {
        return Err(top.refuse("rope_theta", "a number above 1, which \"yarn\" calls for"));
    }
    Ok(YarnScaling {
        factor,
        attention_factor,
        beta_fast,
        beta_slow,
        original_max_position_embeddings: original,
        truncate: match rope.object.get("truncate") {
            None => true,
            Some(Value::Bool(truncate)) => *truncate,
            Some(_) => return Err(rope.refuse("truncate", "true or false")),
        },
    })
}

fn llama3(
    top: &Fields<'_>,
    rope: &Fields<'_>,
    positions: usize,
) -> Result<Llama3Scaling, ModelConfigError> {
    let scaling = Llama3Scaling {
        factor: rope.number("factor")?,
        low_freq_factor: rope.number("low_freq_factor")?,
        high_freq_factor: rope.number("high_freq_factor")?,
        original_max_position_embeddings: original(top, rope, positions)?,
    };
    if scaling.high_freq_factor <= scaling.low_freq_factor {
        return Err(rope.refuse("high_freq_factor", "a number above low_freq_factor"));
    }
    Ok(scaling)
}
