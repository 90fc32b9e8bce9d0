//! Scaled RoPE that the metadata states, as llama.cpp reads it.

use super::super::config::{RopeScaling, YarnScaling};
use super::config::Keys;
use super::error::GgufError;
use super::metadata::Value;

/// The scaling that the metadata states; `None` where it states none.
pub(super) fn read(keys: &Keys<'_>) -> Result<Option<RopeScaling>, GgufError> {
    let known = "absent, \"none\", \"linear\" or \"yarn\": other kinds of scaled RoPE are not \
                 supported";
    let key = keys.key("rope.scaling.type");
    let kind = keys.metadata.optional(&key, known, |value| {
        let kind = value.as_text();
        kind.filter(|kind| ["none", "linear", "yarn"].contains(kind))
    })?;
    // What cosines and sines are multiplied with besides, in other words than the factor's.
    for name in ["attn_factor", "yarn_attn_factor", "yarn_ext_factor"] {
        let key = keys.key(&format!("rope.scaling.{name}"));
        let one = "absent or 1: this kind of scaled RoPE is not supported";
        keys.metadata.optional(&key, one, |value| {
            value.as_float().filter(|&factor| factor == 1.0)
        })?;
    }
    let logarithm = keys.key("rope.scaling.yarn_log_multiplier");
    let none = "absent or 0: this kind of scaled RoPE is not supported";
    keys.metadata.optional(&logarithm, none, |value: &Value| {
        value.as_float().filter(|&factor| factor == 0.0)
    })?;
    let factor = match factor(keys, "rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => factor(keys, "rope.scale_linear")?,
    };
    match (kind, factor) {
        (Some("none"), _) => Ok(None),
        (Some("yarn"), factor) => Ok(Some(RopeScaling::Yarn(yarn(keys, factor)?))),
        (_, factor) => Ok(factor.map(|factor| RopeScaling::Linear { factor })),
    }
}

/// Converters write a factor of 0 or 1 where there is no scaling.
fn factor(keys: &Keys<'_>, name: &str) -> Result<Option<f64>, GgufError> {
    let factor = keys
        .metadata
        .optional(&keys.key(name), "a number from 0", |value| {
            let found = value.as_float();
            found.filter(|factor| (0.0..f64::from(f32::MAX)).contains(factor))
        })?;
    Ok(factor.filter(|&factor| factor != 0.0 && factor != 1.0))
}

fn yarn(keys: &Keys<'_>, factor: Option<f64>) -> Result<YarnScaling, GgufError> {
    let above = "a number above 1, which \"yarn\" calls for";
    let Some(factor) = factor.filter(|&factor| factor > 1.0) else {
        return Err(keys.refuse("rope.scaling.factor", above));
    };
    let beta = |name: &str| keys.positive(&format!("rope.scaling.{name}"));
    let scaling = YarnScaling {
        factor,
        attention_factor: 0.1 * factor.ln() + 1.0,
        beta_fast: beta("yarn_beta_fast")?.unwrap_or(32.0),
        beta_slow: beta("yarn_beta_slow")?.unwrap_or(1.0),
        original_max_position_embeddings: keys.size("rope.scaling.original_context_length")?,
        truncate: true,
    };
    if scaling.beta_fast < scaling.beta_slow {
        return Err(keys.refuse("rope.scaling.yarn_beta_fast", "not below yarn_beta_slow"));
    }
    if keys
        .positive("rope.freq_base")?
        .is_some_and(|theta| theta <= 1.0)
    {
        return Err(keys.refuse("rope.freq_base", above));
    }
    Ok(scaling)
}
